"""Questions that people ask of runs, one a file, named as the stage that asks it: arrays in, an answer in words out."""
