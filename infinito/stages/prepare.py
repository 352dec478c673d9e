"""params -> data/prepared: the three splits and their manifest."""

from infinito import tasks
from infinito.runs import FanOut
from infinito.storage import replacing
from infinito.study import Study


def prepare(study: Study, fan_out: FanOut) -> None:
    """params -> data/prepared: the three splits and their manifest."""
    with replacing(study.data) as temporary:
        temporary.mkdir()
        tasks.prepare(study.params.prepare, temporary, study.folder)
