"""Simulated gerbils and the sounds they hear: a cohort whose truth is known."""
