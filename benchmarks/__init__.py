"""Measurements: each prints a ratio against a reference that ran in the same process on the same machine."""
