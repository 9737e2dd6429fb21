"""Recordings of others, as what a cohort stores: sounds and counts."""
