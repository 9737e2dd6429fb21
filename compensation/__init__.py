"""Hearing-aid networks trained through a model of the midbrain."""
