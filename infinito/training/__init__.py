"""The engine: trains runs from their seeds to their results, together (`stacked`) or one after the other (`loop`).

Stacked, axis 0 of every tensor, S, is the run; this room is the only one that says vmap. Every run keeps its own
weights, batches, noise, clipping and hyperparameters, so a run's weights do not depend on its lane or its neighbours,
and a run that diverges leaves the others untouched. All parameters of a run lie in one flat row [P]: the optimiser is
then a single elementwise pass, whatever the network.

Equal seeds give equal bits on the same class of device, with the same versions and the same S: every sum is taken in
an order that does not depend on timing, on a GPU too.

Shapes: S runs, P parameters of one run, B batch, N evaluation examples; `...` as the task's examples are.
"""

from infinito.training.compiling import compiler, compiler_version
from infinito.training.evaluation import Evaluation, predict
from infinito.training.loop import Loop
from infinito.training.objective import Objective
from infinito.training.optimisers import optimiser
from infinito.training.program import Program
from infinito.training.randomness import drawing
from infinito.training.schedule import Settings, learning_rate
from infinito.training.stacked import train
from infinito.training.trained import Trained

__all__ = [
    "Evaluation",
    "Loop",
    "Objective",
    "Program",
    "Settings",
    "Trained",
    "compiler",
    "compiler_version",
    "drawing",
    "learning_rate",
    "optimiser",
    "predict",
    "train",
]
