"""The stages of the pipeline: each reads its inputs, calls the library, and writes its outputs whole or not at all."""

from collections.abc import Callable

from infinito.runs import FanOut
from infinito.stages.attribute import attribute
from infinito.stages.compare import compare
from infinito.stages.ensemble import ensemble
from infinito.stages.golden import golden
from infinito.stages.prepare import prepare
from infinito.stages.report import report
from infinito.stages.train import train
from infinito.study import Study

STAGES: dict[str, Callable[[Study, FanOut], None]] = {
    "prepare": prepare,
    "train": train,
    "compare": compare,
    "attribute": attribute,
    "golden": golden,
    "ensemble": ensemble,
    "report": report,
}
