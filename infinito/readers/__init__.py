"""Other people's results: one format a file, all of them to one tidy table."""
