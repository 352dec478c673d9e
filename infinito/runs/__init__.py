"""Runs: what was trained, from which seeds, in which stacks, and what it left on disk."""

from infinito.runs.pairing import paired_runs
from infinito.runs.stacks import FanOut, StackJob
from infinito.runs.table import ARMS, Run, RunTable, collect

__all__ = ["ARMS", "FanOut", "Run", "RunTable", "StackJob", "collect", "paired_runs"]
