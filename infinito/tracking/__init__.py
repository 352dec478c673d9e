"""Tracking: every run has a record, of studies and of anybody's scripts, in one store that a team shares.

Nothing is re-exported here: what registers a run needs none of the libraries that take seconds to import.
"""
