"""The record of a stage: the code, the versions, the hardware and the time behind its outputs."""

from pathlib import Path

from infinito.lineage.pipeline import Pipeline
from infinito.runs.provenance import environment, this_device, working_tree
from infinito.storage import write_json
from infinito.study import Study


def record_file(folder: Path, stage: str) -> Path:
    """Where the record of a stage is."""
    return folder / "results" / "records" / f"{stage}.json"


def write_record(study: Study, stage: str, seconds: float) -> None:
    """Write results/records/<stage>.json: the code, the versions, the hardware and the time behind a stage's outputs.

    To be called when the stage has written them. It stands beside the results, not in them: they stay the same to the
    byte when nothing but the time or the machine is another.

    Args:
        study: in which the stage has run.
        stage: its name in dvc.yaml.
        seconds: how long it took.

    Raises:
        FileNotFoundError: no dvc.yaml.
        ValueError: dvc.yaml has no such stage, or an output of it is missing.
    """

    pipeline = Pipeline.load(study.folder)
    if stage not in pipeline.stages:
        raise ValueError(f"{study.folder / 'dvc.yaml'}: no stage {stage!r}; allowed: {', '.join(pipeline.stages)}")
    file = record_file(study.folder, stage)
    own = file.relative_to(study.folder).as_posix()
    outputs = {path: pipeline.on_disk(path) for path in pipeline.outputs(stage) if path != own}
    for path, found in outputs.items():
        if found is None:
            raise ValueError(f"{study.folder / path}: stage {stage} has not written it")
    tree = working_tree(study.folder)
    write_json(
        file,
        {
            "schema": "infinito/record/1",
            "study": study.params.study,
            "stage": stage,
            "outputs": outputs,
            "git_revision": tree["revision"],
            "git_diff_sha256": tree["diff_sha256"],
            "git_untracked": tree["untracked"],
            "seconds": round(seconds, 3),
            **environment(this_device()),
        },
    )
