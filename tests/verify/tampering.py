"""What can be tampered with in a study, one thing at a time, and which command notices.

`python -m tests.verify.tampering` prints the table of docs/tampering.md; test_tampering.py tries every row.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from infinito.stages import STAGES
from infinito.storage import file_sha256, read_json, read_table, read_weights, write_json, write_table, write_weights
from infinito.study import load_study
from tests.conftest import in_process
from tests.plans import change
from tests.recorded import dvc, edit, git
from tests.rerecorded import rerecord

COMMANDS = ("python -m infinito.flows.stage compare", "infinito audit", "infinito verify --all", "dvc status")

NETWORK = """\
from torch import nn


class Net(nn.Module):
    def __init__(self, vocabulary, length, causal, width, layers, heads, dropout):
        super().__init__()
        self.embedding, self.out = nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary)

    def forward(self, tokens):
        return self.out(self.embedding(tokens))
"""


@dataclass(frozen=True)
class Case:
    """One thing that is changed, and a part of what each command says of it; None: it notices nothing.

    What `infinito audit` says only as a reserve, and so fails for only with --strict, begins with "reserve".
    """

    what: str
    harm: Callable[[Path], object]
    compare: str | None
    audit: str | None
    verify: str | None
    status: str | None

    @property
    def said(self) -> tuple[str | None, ...]:
        """In the order of COMMANDS."""
        return self.compare, self.audit, self.verify, self.status


def stack(study: Path) -> Path:
    """The folder of a stack of the candidate's pairs."""
    return first_row(study)[0]


def first_row(study: Path) -> tuple[Path, str]:
    table = read_table(study / "models/runs/runs.parquet").to_pandas()
    row = table[(table["design"] == "pairs") & (table["arm"] == "candidate")].iloc[0]
    return study / "models/runs/stacks" / row["stack_id"], row["run_id"]


def change_row(study: Path, **values: Any) -> pd.DataFrame:
    file = study / "models/runs/runs.parquet"
    table = read_table(file).to_pandas()
    table.loc[table["run_id"] == first_row(study)[1], list(values)] = list(values.values())
    write_table(file, table)
    return table


def drop_pair(study: Path) -> None:
    file = study / "models/runs/runs.parquet"
    table = read_table(file).to_pandas()
    seed = table["init_seed"].iloc[0]
    write_table(file, table[table["init_seed"] != seed].reset_index(drop=True))


def forge_with_records(study: Path) -> None:
    """A loss, in the table and in the stack's record, and DVC is told that this is right."""
    rerecord(study / "models/runs", change_row(study, test_loss=0.0))
    dvc(study, "commit", "--force", "--quiet", "train")


def change_weights(study: Path, name: str) -> None:
    file = stack(study) / f"{name}.safetensors"
    tensors = {key: tensor.clone() for key, tensor in read_weights(file).items()}
    tensors[sorted(tensors)[0]][0] += 1
    write_weights(file, tensors)


def change_table(file: Path, column: str) -> None:
    table = read_table(file).to_pandas()
    table.loc[0, column] = table.loc[0, column] + 1
    write_table(file, table)


def change_setting(study: Path) -> None:
    file = stack(study) / "stack.json"
    edit(file, train=read_json(file)["train"] | {"learning_rate": 0.02})


def change_plan(study: Path) -> None:
    content = read_json(study / "plan.json")
    content["plan"]["smallest_effect"] = 1e-9
    write_json(study / "plan.json", content)


def forge_plan_and_name(study: Path) -> None:
    """Another plan by hand, and train.plan names it."""
    change_plan(study)
    change(study, {"train.plan": file_sha256(study / "plan.json"), "compare.smallest_effect": 1e-9})


def lines(study: Path) -> list[str]:
    return (study / "plans.jsonl").read_text().splitlines(keepends=True)


def change_line(study: Path) -> None:
    text = lines(study)
    entry = json.loads(text[1])
    code = entry["code"] | {"network_of_a_study.py": "0" * 64}
    (study / "plans.jsonl").write_text("".join([text[0], json.dumps(entry | {"code": code}) + "\n", *text[2:]]))


def rewrite_ledger(study: Path) -> None:
    """A ledger without a past, committed."""
    (study / "plans.jsonl").write_text(lines(study)[0])
    git(study, "commit", "-qam", "tidy")


def change_lock(study: Path) -> None:
    lock = yaml.safe_load((study / "dvc.lock").read_text())
    lock["stages"]["train"]["outs"][0]["md5"] = "0" * 32 + ".dir"
    (study / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))


def prepare_other_data(study: Path) -> None:
    before = (study / "params.yaml").read_text()
    change(study, {"prepare.seed": 7})
    STAGES["prepare"](load_study(study), in_process)
    (study / "params.yaml").write_text(before)


def commit_a_verdict(study: Path) -> None:
    edit(study / "results/compare.json", verdict="BETTER")
    dvc(study, "commit", "--force", "--quiet")


REFUSED = "runs.parquet: run "
CASES = (
    Case(
        "`plan.json`: a figure", change_plan,
        "plan.json: is the plan", "plan: ", None, None,
    ),
    Case(
        "`plan.json` and `train.plan`: another plan, by hand", forge_plan_and_name,
        "exploratory: the plan is not in plans.jsonl", "is no plan that plans.jsonl has", None, "params.yaml",
    ),
    Case(
        "`plans.jsonl`: the code in a line", change_line,
        "line 3: does not follow the line before it", "ledger: ", None, None,
    ),
    Case(
        "`plans.jsonl`: its last line removed",
        lambda study: (study / "plans.jsonl").write_text("".join(lines(study)[:-1])),
        "which the last commit of git has, is gone", "git: ", None, None,
    ),
    Case(
        "`plans.jsonl`: rewritten, and committed", rewrite_ledger,
        "exploratory: no training under this plan is in plans.jsonl", "line 2, which commit", None, None,
    ),
    Case(
        "`models/runs/runs.parquet`: a loss", lambda study: change_row(study, test_loss=0.0),
        "test_loss: found 0.0; allowed: ", REFUSED, "test loss differs by", "models/runs",
    ),
    Case(
        "`models/runs/runs.parquet`: the hash of a run's weights",
        lambda study: change_row(study, weights_sha256="0" * 64),
        "weights_sha256: found '0000", REFUSED, "runs.parquet has another hash of them", "models/runs",
    ),
    Case(
        "`models/runs/runs.parquet`: both runs of a pair removed", drop_pair,
        "is missing, which ", REFUSED, "not those that runs.parquet has of this stack", "models/runs",
    ),
    Case(
        "a loss in the table and in its stack's record, then `dvc commit train`", forge_with_records,
        "exploratory: the run table is none that plans.jsonl has", "train.json: of another models/runs than there is",
        "test loss differs by", "models/runs",
    ),
    Case(
        "`stack.json`: a setting", change_setting,
        "exploratory: stack candidate-pairs-00 was trained with another train.learning_rate",
        "not what dvc.lock records", "other settings or seeds", "models/runs",
    ),
    Case(
        "`stack.json`: removed", lambda study: (stack(study) / "stack.json").unlink(),
        "stack.json: missing, with all that is known of its", "stack.json: missing", "stack.json: no such file",
        "models/runs",
    ),
    Case(
        "`final.safetensors`: a weight", lambda study: change_weights(study, "final"),
        None, "final.safetensors: found", "final weights differ by 1 at most", "models/runs",
    ),
    Case(
        "`initial.safetensors`: a weight", lambda study: change_weights(study, "initial"),
        None, "initial.safetensors: found", "initial weights differ already", "models/runs",
    ),
    Case(
        "`items.parquet`: the loss of an example", lambda study: change_table(stack(study) / "items.parquet", "loss"),
        "items.parquet: found", "items.parquet: found", None, "models/runs",
    ),
    Case(
        "`curves.parquet`: a point", lambda study: change_table(study / "models/runs/curves.parquet", "value"),
        None, "curves.parquet: not the learning curves that", None, "models/runs",
    ),
    Case(
        "`models/runs`: moved away", lambda study: shutil.move(study / "models/runs", study.parent / "elsewhere"),
        "runs.parquet: no such file", "models/runs: not on this machine; dvc pull brings it", "no such file",
        "models/runs",
    ),
    Case(
        "`data/prepared/test.parquet`: its bytes",
        lambda study: (study / "data/prepared/test.parquet").write_bytes(b"x"),
        "test.parquet: its contents are not those", "data: ", "test.parquet: its contents", "data/prepared",
    ),
    Case(
        "`data/prepared/manifest.json`: a word",
        lambda study: edit(study / "data/prepared/manifest.json", note="other"),
        "was trained on the data", "was trained on the data", "manifest.json: found data", "data/prepared",
    ),
    Case(
        "`data/prepared`: prepared again with another seed", prepare_other_data,
        "was trained on the data", "was trained on the data", "manifest.json: found data", "data/prepared",
    ),
    Case(
        "`params.yaml`: a setting of the training", lambda study: change(study, {"train.steps": 5}),
        "exploratory: train.steps is not as planned", "reserve: stages: stage train: params.yaml: train.steps", None,
        "params.yaml",
    ),
    Case(
        "a network's file", lambda study: (study / "network_of_a_study.py").write_text(
            NETWORK.replace("self.out(self", "2 * self.out(self")
        ),
        None, "reserve: stages: stage train: network_of_a_study.py", "differs first after step",
        "network_of_a_study.py",
    ),
    Case(
        "`dvc.lock`: the hash of an output", change_lock,
        None, "models/runs: not what dvc.lock records", None, "models/runs",
    ),
    Case(
        "`results/records/train.json`: the revision",
        lambda study: edit(study / "results/records/train.json", git_revision="0" * 40),
        None, "results/records/train.json: not what dvc.lock records", None, "results/records/train.json",
    ),
    Case(
        "`results/compare.json`: the verdict", lambda study: edit(study / "results/compare.json", verdict="BETTER"),
        None, "compare.json: not what dvc.lock records", None, "results/compare.json",
    ),
    Case(
        "the same, then `dvc commit`", commit_a_verdict,
        None, "compare.json: verdict: found BETTER; the last verdict in plans.jsonl has", None, None,
    ),
    Case(
        "`results/compare.json`: removed", lambda study: (study / "results/compare.json").unlink(),
        None, "results/compare.json: missing, and dvc.lock records it", None, "results/compare.json",
    ),
    Case(
        "`results/report.html`: a word", lambda study: (study / "results/report.html").write_text("BETTER"),
        None, "results/report.html: not what dvc.lock records", None, "results/report.html",
    ),
)  # fmt: skip


def table() -> str:
    """The cases as Markdown: what each command says, cut where a value begins; – where it notices nothing."""
    head = ["changed", *(f"`{command}`" for command in COMMANDS)]
    cells = [[case.what, *("–" if said is None else f"{said.strip()}" for said in case.said)] for case in CASES]
    rows = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *cells)]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(), end="")
