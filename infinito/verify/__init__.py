"""Whether a record still holds: its runs are trained again from it, and compared with it bit by bit, step by step.

The trace of a training (see `infinito.training.trace`) says after which step two trainings part. A digest of every
tensor there is only at the points of the learning curve, so the tensor is known as of the next point.
"""

from infinito.verify.comparison import verified
from infinito.verify.record import changed_environment, recorded
from infinito.verify.selection import chosen, runs_of
from infinito.verify.words import run_line, stack_line, summary

SCHEMA = "infinito/verify/1"

__all__ = [
    "SCHEMA",
    "changed_environment",
    "chosen",
    "recorded",
    "run_line",
    "runs_of",
    "stack_line",
    "summary",
    "verified",
]
