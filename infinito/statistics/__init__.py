"""Statistics: arrays in, numbers out. Nothing here knows of runs, files or params."""
