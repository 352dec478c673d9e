"""Trains a stack of runs at once: axis 0 of every tensor, S, is the run. The only package that says vmap.

Every run keeps its own weights, batches, noise, clipping and hyperparameters, so a run's weights do not depend on its
lane or its neighbours, and a run that diverges leaves the others untouched. All parameters of a run lie in one flat
row [P]: the optimiser is then a single elementwise pass, whatever the network.

Equal seeds give equal bits on the same class of device, with the same versions and the same S: every sum is taken in
an order that does not depend on timing, on a GPU too.

Shapes: S runs, P parameters of one run, B batch, T length, V vocabulary, N evaluation examples.
"""

from infinito.training.compiling import compiler, compiler_version
from infinito.training.evaluation import Evaluation, predict
from infinito.training.objective import Objective
from infinito.training.program import Program
from infinito.training.schedule import Settings, learning_rate
from infinito.training.stacked import Trained, train

__all__ = [
    "Evaluation",
    "Objective",
    "Program",
    "Settings",
    "Trained",
    "compiler",
    "compiler_version",
    "learning_rate",
    "predict",
    "train",
]
