"""Scores of processed sound, by whatever device made it."""
