"""TensorBoard: scalars in folders of event files, a folder a run."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from infinito.readers.pattern import parts_of
from infinito.readers.results import Options, Results
from infinito.readers.tracked import FIGURES, Run, logged

EVENTS = "*tfevents*"
SPLITS = ("train", "training", "validation", "valid", "val", "test", "eval")  # Keras has a folder for each
SEED = re.compile(r"(?P<arm>.*?)[ _.=-]*seed[ _.=-]*(?P<seed>\d+)", re.IGNORECASE)


def read(folder: Path, options: Options) -> Results:
    """All scalars below a folder, as learning curves.

    The arm is the folder above the run's, or else what stands before the seed in its name; the seed is a number after
    the word; any other number only tells runs apart. --pattern '{arm}/{seed}' says otherwise.

    Raises:
        ValueError: TensorBoard is not installed; no event files, or one without a readable event; no scalars.
    """
    files = sorted(path for path in folder.rglob(EVENTS) if path.is_file())
    if not files:
        raise ValueError(f"{folder}: found no event files of TensorBoard; allowed: folders with files {EVENTS}")
    places = {file.parent for file in files}
    figures: dict[str, list[tuple[float, str, float, float]]] = {}
    remarks: list[str] = []
    for file in files:
        run, split = _run(folder, file.parent, places)
        found = list(scalars(file))
        if not found:
            remarks.append(f"{file.relative_to(folder)}: found no scalars.")
        ours = figures.setdefault(run, [])
        ours += [(time, f"{split}/{tag}" if split else tag, step, value) for tag, step, time, value in found]
    rows = [(run, *figure[1:]) for run, curve in figures.items() for figure in sorted(curve, key=lambda one: one[0])]
    if not rows:
        raise ValueError(f"{folder}: found no scalars in {len(files)} event files; allowed: at least one")
    runs = [_named(run, options.pattern) for run in figures]
    by_name = any("arm" in run["params"] for run in runs)
    results = logged(runs, pd.DataFrame(rows, columns=FIGURES), options, str(folder), remarks)
    said = f"--pattern {options.pattern}" if options.pattern else "the path"
    words = {"parameter arm": said, "parameter seed": said, "parameter task": said, "experiment": said}
    results.read_as.update({key: words.get(taken, taken) for key, taken in results.read_as.items()})
    if not by_name and not options.arm and results.table["arm"].eq("").all():
        results.remarks.append("Nothing in the paths says which runs belong together (--pattern '{arm}_{run}').")
    return results


def is_one(folder: Path) -> bool:
    """Whether there are event files below a folder."""
    return next((path for path in folder.rglob(EVENTS) if path.is_file()), None) is not None


def scalars(file: Path) -> Iterator[tuple[str, float, float, float]]:
    """tag, step, time, value of one event file.

    Raises:
        ValueError: TensorBoard is not installed; there is no readable event.
    """
    try:
        loaders = importlib.import_module("tensorboard.backend.event_processing.event_file_loader")
        make_ndarray = importlib.import_module("tensorboard.util.tensor_util").make_ndarray
    except ImportError as error:
        raise ValueError(f"{file}: event files need tensorboard; install tensorboard") from error
    empty = True
    try:
        for event in loaders.EventFileLoader(str(file)).Load():
            empty = False
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name != "scalars":
                    continue
                yield value.tag, float(event.step), event.wall_time, float(make_ndarray(value.tensor).item())
    except Exception as error:  # of the format below: a record or message that is cut or damaged
        raise ValueError(f"{file}: not a readable event file: {' '.join(str(error).split())[:200]}") from error
    if empty:
        raise ValueError(f"{file}: not a readable event file: found no event")


def _run(root: Path, folder: Path, places: set[Path]) -> tuple[str, str]:
    """The run of a folder, and the split that it holds; folders below those of a run are of that run."""
    split = ""
    if folder.name.lower() in SPLITS and folder != root and folder.parent not in places:
        folder, split = folder.parent, folder.name
    for above in reversed([folder, *folder.parents]):
        if above in places and above.is_relative_to(root) and above != root:
            folder = above
            break
    return folder.relative_to(root).as_posix(), split


def _named(run: str, pattern: str | None) -> Run:
    """What the path of a run says."""
    params: dict[str, str] = {}
    above = ""
    if pattern:
        params = {key: value for key, value in parts_of(run, pattern, "path of the run").items() if key != "run"}
    else:
        above, _, name = run.rpartition("/")
        match = SEED.fullmatch(name)
        if match:
            params["seed"] = str(int(match["seed"]))
            above = "/".join(filter(None, (above, match["arm"])))
    return {"id": run, "run": run, "status": "", "experiment": above, "params": params, "tags": {}}
