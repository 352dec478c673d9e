"""Judging what others measured: their runs, or the figures they published. No stage of a study depends on it."""
