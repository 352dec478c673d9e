"""models/runs -> models/golden, results/golden.json: is there a golden seed?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from infinito import params, runs, seeds, tasks
from infinito.questions import golden as gold
from infinito.runs import ARMS, FanOut, Run, RunTable, checkpoint, stacks
from infinito.storage import file_sha256, replacing, write_json
from infinito.study import Study
from infinito.tasks.command import Reported

OF_A_FILE = 0  # the init seed of runs whose initial weights are those of a file; no pool has it


def _best_seeds(study: Study, table: RunTable) -> dict[str, int]:
    """Init seeds by how they were found: by the rule of this program, and in two ways of the original report."""
    grid = {arm: table.design("grid", arm) for arm in ARMS}
    mean = grid["candidate"].groupby("init_seed")["val_loss"].mean()
    selected = {"selected": int(mean.index[int(mean.argmin())])}
    train = study.params.train
    if isinstance(train, params.Commands):  # nobody knows the loss of their last batch
        return selected
    candidate, baseline = table.pairs("pilot" if train.pilot else "pairs", unequal=train.unequal("candidate"))

    def best_by_percentage(mine: pd.DataFrame, other: pd.DataFrame) -> int:
        gain = (other["last_batch_loss"] - mine["last_batch_loss"]) / other["last_batch_loss"].abs()
        return int(mine["init_seed"].iloc[int(gain.argmax())])

    return selected | {
        "best_of_ten": best_by_percentage(candidate[:10], baseline[:10]),
        "best_cell": best_by_percentage(grid["candidate"], grid["baseline"]),
    }


def _forwarded(study: Study, table: RunTable, forward: Sequence[str]) -> dict[str, int]:
    """What is put to the golden rule: init seeds by name; two ways that found the same seed share a name."""
    found = _best_seeds(study, table) | {"checkpoint": OF_A_FILE}
    ways: dict[int, list[str]] = {}
    for way in dict.fromkeys(forward):
        ways.setdefault(found[way], []).append(way.replace("_", " "))
    return {" and ".join(names): init_seed for init_seed, names in ways.items()}


def golden(study: Study, fan_out: FanOut) -> None:
    """models/runs -> models/golden, results/golden.json: select on the grid, confirm on fresh seeds, keep the weights.

    The protocol is written down, with its hash, before the first confirmation run.
    """
    settings, root = study.params.golden, study.params.train.seed
    if settings is None:
        raise ValueError(f"{study.folder / 'params.yaml'}: golden: missing section, which the stage golden needs")
    table, data = RunTable.of(study), tasks.measured(study.data)
    metric, cells = data.task.metric, table.design("grid", "candidate")
    init_seeds, grid_data_seeds = (sorted({int(x) for x in cells[key]}) for key in ("init_seed", "data_seed"))
    selection = gold.select(table.grid("candidate", "val_loss", complete=True))
    forwarded = _forwarded(study, table, settings.forward)
    file = None if settings.checkpoint is None else study.folder / settings.checkpoint
    if file is not None and not file.is_file():
        raise ValueError(f"{study.folder / 'params.yaml'}: golden.checkpoint: found {file}, which is no file")
    data_seeds = seeds.pool(root, "confirm", settings.data_seeds)
    fresh = seeds.pool(root, "controls", settings.data_seeds * settings.controls)
    control_inits = [fresh[j * settings.controls : (j + 1) * settings.controls] for j in range(settings.data_seeds)]
    protocol = {
        "schema": "infinito/golden-protocol/2",
        "study": study.params.study,
        "data_sha256": data.sha256,
        "selected_on": f"mean validation {metric.name} over the data seeds of the grid",
        "selected_from": init_seeds,
        "forwarded": {name: None if seed == OF_A_FILE else seed for name, seed in forwarded.items()},
        "checkpoint_sha256": None if file is None else file_sha256(file),
        "data_seeds": data_seeds,
        "control_init_seeds": control_inits,
        "test": f"one-sided paired t on mean(controls) - golden, test {metric.name}; Holm over the forwarded",
        **settings.model_dump(include={"alpha", "margin", "useful"}),
    }
    registered = gold.protocol_hash(protocol)
    write_json(study.results / "golden_protocol.json", {"sha256": registered, "protocol": protocol})

    wanted = [
        Run("candidate", "confirm", seed, data_seed)
        for seed in forwarded.values()
        for data_seed in data_seeds
        if seed != OF_A_FILE
    ]
    wanted += [
        Run("candidate", "controls", init_seed, data_seed)
        for data_seed, inits in zip(data_seeds, control_inits, strict=True)
        for init_seed in inits
    ]
    jobs = stacks.plan(study, data, wanted, protocol=registered)
    if OF_A_FILE in forwarded.values():
        from_file = [Run("candidate", "confirm", OF_A_FILE, data_seed) for data_seed in data_seeds]
        jobs += stacks.plan(study, data, from_file, protocol=registered, initial=file, first=len(jobs))
    folders = fan_out(jobs)
    with replacing(study.golden) as temporary:
        runs.collect(folders, temporary / "confirmation")
        confirmation = RunTable.load(temporary / "confirmation")
        confirm = confirmation.design("confirm", "candidate").sort_values("data_seed", ignore_index=True)
        controls = confirmation.design("controls", "candidate").sort_values(["data_seed", "init_seed"])
        control_loss = controls["test_loss"].to_numpy().reshape(-1, settings.controls)
        candidates = [
            gold.Candidate(name, None if seed == OF_A_FILE else seed, own["test_loss"].to_numpy())
            for name, seed in forwarded.items()
            for own in [confirm[confirm["init_seed"] == seed]]
        ]
        earlier = table.table[table.table["design"].isin(["grid", "pilot", "pairs"])]
        decisions = gold.confirm(
            candidates,
            control_loss,
            metric=metric,
            data_seeds=data_seeds,
            control_inits=control_inits,
            selection_inits=[int(x) for x in earlier["init_seed"].unique()],
            selection_data_seeds=[int(x) for x in earlier["data_seed"].unique()],
            # runs of an earlier protocol that are used again were not registered under this one
            registered={confirmation.record(s)["protocol_sha256"] for s in confirmation.table["stack_id"]}
            == {registered},
            margin=settings.margin,
            margin_useful=settings.useful,
            alpha=settings.alpha,
        )
        differences = {c.name: (control_loss.mean(1) - np.asarray(c.loss)).tolist() for c in candidates}
        first = next(iter(forwarded.values()))
        kept = confirm[(confirm["init_seed"] == first) & ~confirm["diverged"]].nsmallest(1, "val_loss")
        if kept.empty:
            raise ValueError(f"init seed {first}: every confirmation run diverged, so there is no model to keep")
        i, j = selection["best_cell"]["index"]
        examples = confirmation.items([str(kept["run_id"].iloc[0])]) if confirmation.has_items else None
        result = {
            "schema": "infinito/golden/2",
            "study": study.params.study,
            **decisions[0],
            "decisions": decisions,
            "claims": gold.claims(
                None if examples is None else (examples[0][0], examples[1]),
                decisions,
                selection["best_cell"],
                metric=metric,
                cell_seeds=(init_seeds[i], grid_data_seeds[j]),
                deterministic=_deterministic(cells),
                unit="examples",
            ),
            "protocol_sha256": registered,
            "selection": selection | {"init_seeds": init_seeds},
            "differences": differences[candidates[0].name],
            "all_differences": differences,
        }
        result["checkpoint"] = None
        if not isinstance(data, Reported):  # a command keeps its weights
            result["checkpoint"] = checkpoint.export(study, confirmation, kept, result, data, temporary)
    write_json(study.results / "golden.json", result)


def _deterministic(cells: pd.DataFrame) -> bool | None:
    """Whether reruns of identical seeds ended with the same weights, bit for bit; None where nothing was rerun."""
    if cells["rep"].max() == 0:
        return None
    return bool((cells.groupby(["init_seed", "data_seed", "noise_seed"])["weights_sha256"].nunique() == 1).all())
