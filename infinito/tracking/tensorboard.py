"""TensorBoard: curves and final figures as event files, a folder a run, by its own writer and without TensorFlow.

FOLDER/NAME/ARM/DESIGN seed=1 ID: `tensorboard --logdir FOLDER` tells the runs of an arm from those of others. Its
scalars have 32 bits: a store or MLflow keeps the figures as they are.
"""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from infinito.storage import replacing
from infinito.tracking.record import Record
from infinito.tracking.sent import Progress, Sent


def send(runs: Sequence[Record], folder: Path, progress: Progress) -> Sent:
    """Write the runs that the folder does not have; see `targets.send`."""
    new = [record for record in runs if not (folder / place(record)).is_dir()]
    for number, record in enumerate(new):
        # a folder appears when it is whole, so that what was broken off is written again
        with replacing(folder / place(record)) as temporary:
            _write(record, temporary)
        progress(number + 1)
    return Sent(len(new), len(runs) - len(new))


def place(record: Record) -> Path:
    """The folder of a run."""
    seeds = " ".join(f"{name}={value}" for name, value in record.seeds.items())
    run = " ".join(filter(None, (record.design, seeds, record.id)))
    return Path(*(_plain(part) for part in (record.name, record.arm, run) if part))


def _plain(name: str) -> str:
    return re.sub(r"[^\w.= \-]", "_", name)


def _write(record: Record, folder: Path) -> None:
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise ValueError("tensorboard: is not installed; allowed: after pip install tensorboard") from error
    time = datetime.fromisoformat(record.ended or record.began).timestamp() if record.began else 0.0
    folder.mkdir(parents=True, exist_ok=True)
    writer = EventFileWriter(str(folder))
    try:
        for name, step, value in _scalars(record):
            summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
            writer.add_event(Event(wall_time=time, step=int(step), summary=summary))
        about = {"id": record.id, "code": record.code, **record.params, **record.seeds, **record.tags}
        lines = "\n".join(f"    {line}" for line in json.dumps(about, indent=2, ensure_ascii=False).splitlines())
        writer.add_event(Event(wall_time=time, step=0, summary=text_pb("run", lines)))
    finally:
        writer.close()


def _scalars(record: Record) -> Iterator[tuple[str, float, float]]:
    """A final figure that has a curve of its name has that of another one here."""
    for name, curve in record.curves.items():
        yield from ((name, step, value) for step, value in curve)
    for name, value in record.metrics.items():
        yield f"final/{name}" if name in record.curves else name, 0, value
