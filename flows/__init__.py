"""Orchestration: the only code that knows Prefect or DVC. DVC decides whether a stage runs, Prefect shows how."""

import os

# Prefect reads these when it is imported, and prefect.toml only in the current folder.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
