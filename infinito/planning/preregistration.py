"""Preregistration: what was promised before the runs, under the name of its hash, and was it then done?

A plan (`plan.make`) is written before the confirmatory pairs are trained, and named by the SHA-256 of its file. The
training stage records that hash with every stack, and in the ledger the code by which the first runs were begun, so
`status` can tell a planned verdict from an exploratory one.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from infinito import seeds
from infinito.params import Params, Train, recipe
from infinito.planning.ledger import Ledger, ordinal
from infinito.storage import canonical, file_sha256, pretty, read_json, sha256, write_json
from infinito.study import Study

SCHEMA = "infinito/plan/2"
EARLIER = "infinito/plan/1"  # such a plan is also known by the hash of its content, which its file holds
_PLAN_KEYS = {
    *("study", "created", "arms", "train", "metrics", "alpha", "smallest_effect", "data_sha256"),
    *("effect", "power", "pairs", "looks", "seed", "pilot", "cost"),
}


def promise(params: Params) -> dict[str, Any]:
    """The part of params.yaml that a plan fixes, beside pairs, looks and seed."""
    train, more = params.train, {}
    if isinstance(train, Train) and any(train.of(arm).keep == "best" for arm in train.arms):
        more = {"curve_every": train.curve_every}  # even if the shared recipe keeps the last
    return {
        "study": params.study,
        "arms": {name: arm.promised for name, arm in train.arms.items()},
        "train": train.recipe | more,
        "metrics": list(params.compare.metrics),
        "alpha": params.compare.alpha,
        "smallest_effect": params.compare.smallest_effect,
    }


def other_settings(promised: dict[str, Any], record: dict[str, Any]) -> str | None:
    """The first way in which a stack was trained otherwise than promised: data, a key of the recipe, or its arm."""
    if record["data_sha256"] != promised["data_sha256"]:
        return "data"
    arm = promised["arms"].get(record["name"].partition("-")[0], {})  # a stack is named after its arm
    then, now = recipe(promised["train"], arm.get("train")), recipe(record["train"])
    changed = next((f"train.{key}" for key in {**then, **now} if then.get(key) != now.get(key)), None)
    same_arm = all(arm.get(key) == value for key, value in record["arm"].items())
    return changed or (None if same_arm else "arm")


def changed_setting(plan: dict[str, Any], params: Params) -> str | None:
    """The first thing that a plan fixes and params.yaml has otherwise."""
    now = promise(params) | {key: getattr(params.train, key) for key in ("pairs", "looks", "seed")}
    for key, value in now.items():
        if plan[key] != value:
            parts = {**plan[key], **value} if isinstance(value, dict) else {}
            return ".".join([key, *[part for part in parts if plan[key].get(part) != value.get(part)][:1]])
    return None


def write(study: Study, plan: dict[str, Any], *, replace: bool = False) -> tuple[dict[str, Any], str]:
    """Write a plan, whole or not at all, and note it in the ledger.

    A plan that promises the same keeps its date, its prices and so its hash. One that takes the place of another leaves
    that one in the ledger.

    Returns:
        (the plan that is in the file now, its hash).

    Raises:
        ValueError: the file holds another plan, and `replace` is not set; it is no plan; or see `Ledger.read`.
    """
    file, ledger = study.plan, Ledger.read(study.ledger)
    if file.exists():
        old, name = read(file)
        known = ledger.number(name) is not None or not ledger.plans
        if not known and not replace:
            raise ValueError(
                f"{file}: is no plan that {study.ledger} has: it was changed after it was written; allowed: the plan "
                "that was registered (git checkout), or --replace"
            )
        if known:  # also one that is older than the ledger
            ledger = ledger.record("plan", name, {"file": read_json(file)})
        changed = next((key for key in plan if key not in ("created", "cost") and old[key] != plan[key]), None)
        if changed is None:
            return old, name
        if not replace:
            raise ValueError(
                f"{file}: holds another plan, of {old['created']}, which differs in {changed}; allowed: --replace, "
                f"after which verdicts name the earlier plan, and what it said ({ledger.said(name)})"
            )
    content = {"schema": SCHEMA, "plan": plan}
    name = sha256(pretty(content))
    write_json(file, content)
    ledger.record("plan", name, {"file": content})
    return plan, name


def read(file: Path) -> tuple[dict[str, Any], str]:
    """A plan and its name, the SHA-256 of the file.

    Raises:
        ValueError: no such file, not JSON, not a plan, or one that was changed after it was hashed.
    """
    if not file.exists():
        raise ValueError(f"{file}: no such file; infinito plan writes it")
    content = read_json(file)
    known = isinstance(content, dict) and content.get("schema") in (SCHEMA, EARLIER)
    if not known or not isinstance(content.get("plan"), dict):
        raise ValueError(f"{file}: not a plan ({SCHEMA}); infinito plan writes one")
    plan = content["plan"]
    if content["schema"] == EARLIER and content.get("sha256") != sha256(canonical(plan)):
        raise ValueError(
            f"{file}: was changed after it was written: its content has the hash {sha256(canonical(plan))[:16]}.., "
            f"it says {str(content.get('sha256'))[:16]}.."
        )
    missing = _PLAN_KEYS - plan.keys()
    if missing:
        raise ValueError(f"{file}: plan.{min(missing)}: missing key; infinito plan writes it")
    return plan, file_sha256(file)


def registered(study: Study) -> tuple[dict[str, Any], str] | None:
    """The plan that train.plan names, and the SHA-256 of its file; None if it is null.

    Raises:
        ValueError: train.plan is set, but plan.json is missing, is no plan, was changed, or has another hash.
    """
    named = study.params.train.plan
    if named is None:
        return None
    plan, found = read(study.plan)
    if named not in _names(study.plan, found):
        raise ValueError(f"{study.plan}: is the plan {found[:16]}.., but train.plan in params.yaml is {named[:16]}..")
    return plan, found


def _names(file: Path, found: str) -> set[str]:
    """The hashes by which params.yaml and stacks may name the plan in a file."""
    return {found, str(read_json(file).get("sha256", found))}


def begin(study: Study, code: Mapping[str, str]) -> None:
    """Note in the ledger, before the first run under the study's plan is trained, by which code that is.

    Without a plan nothing is noted. A plan that the ledger lacks is noted first.

    Args:
        study: whose train.plan names the plan.
        code: SHA-256 by file, of all arms.

    Raises:
        ValueError: see `registered` and `Ledger.read`.
    """
    found = registered(study)
    if found is not None:
        ledger = Ledger.read(study.ledger)
        if not ledger.plans:
            ledger = ledger.record("plan", found[1], {"file": read_json(study.plan)})
        if ledger.number(found[1]) is None:
            raise ValueError(f"{study.plan}: is no plan that {study.ledger} has; infinito plan registers plans")
        ledger.record("began", found[1], {"code": dict(code)})


def trained(study: Study) -> None:
    """Note in the ledger the hash of the run table that was trained under the study's plan."""
    found = registered(study)
    if found is not None:
        Ledger.read(study.ledger).record("trained", found[1], {"runs_sha256": file_sha256(study.runs / "runs.parquet")})


def conclude(study: Study, result: Mapping[str, Any]) -> None:
    """Note in the ledger what came out; `result`: of the comparison, with its `plan`."""
    found = registered(study)
    if found is not None:
        facts = {
            "verdict": result["verdict"],
            "status": result["plan"]["status"],
            "difference": result["difference"]["value"],
            "n_pairs": result["n_pairs"],
            "runs_sha256": file_sha256(study.runs / "runs.parquet"),
        }
        Ledger.read(study.ledger).record("verdict", found[1], facts)


def status(study: Study, pairs: pd.DataFrame, records: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Is the verdict on these pairs the one that was planned?

    Args:
        study: whose params name the plan by its hash (train.plan), and whose folder holds it and the ledger.
        pairs: the analysed pairs or their runs, with columns init_seed and data_seed.
        records: stack.json of every stack that these runs come from, all arms, by its id.

    Returns:
        {status: planned or exploratory; label: the same in a line, with the plan's number and what the other plans
        said; reason: whole sentences; plan_sha256: of plan.json or None; number: which plan of the study it is, from 1,
        or None; others: the study's other plans, see `Ledger.others`}.

    Raises:
        ValueError: see `registered` and `Ledger.read`.
    """
    found, ledger = registered(study), Ledger.read(study.ledger)
    if found is None:
        return _told(ledger, None, "No plan was registered before the runs: train.plan is null.")
    plan, name = found
    seed_pairs = sorted({(int(i), int(j)) for i, j in zip(pairs["init_seed"], pairs["data_seed"], strict=True)})
    if ledger.number(name) is None:
        return _told(ledger, name, f"The plan is not in {study.ledger.name}, where infinito plan registers plans.")
    deviation = _deviation(plan, study, seed_pairs, [*records.values()]) or _unrecorded(ledger, name, study)
    if deviation is not None:
        return _told(ledger, name, deviation)
    reason = (
        f"The plan of {plan['created']} was registered before the first of the {len(seed_pairs)} pairs was trained, "
        "and nothing it fixes was changed."
    )
    return _told(ledger, name, reason, status="planned")


def _told(ledger: Ledger, name: str | None, reason: str, status: str = "exploratory") -> dict[str, Any]:
    """See `status`."""
    others = ledger.others(name)
    about = [reason[0].lower() + reason[1:].rstrip(".")] if status == "exploratory" else []
    if others or status == "planned":
        about += place(ledger, name)
    number = name and ledger.number(name)
    history = f"It is the {ordinal(number)} plan of this study" if number else "This study has plans"
    told = "; ".join(f"the {ordinal(other['number'])}, of {other['created']}, said {other['said']}" for other in others)
    return {
        "status": status,
        "label": status + (", " if status == "planned" else ": ") + "; ".join(about),
        "reason": reason + (f" {history}: {told}." if others else ""),
        "plan_sha256": name,
        "number": number,
        "others": others,
    }


def place(ledger: Ledger, name: str | None) -> list[str]:
    """Which plan of a study one is, and what the study's other plans said, in clauses."""
    number, others = name and ledger.number(name), ledger.others(name)
    if not number:
        return _said("other", others)
    return [
        f"{ordinal(number)} plan",
        *_said("earlier", [other for other in others if other["number"] < number]),
        *_said("later", [other for other in others if other["number"] > number]),
    ]


def _said(which: str, plans: list[dict[str, Any]]) -> list[str]:
    """What some other plans said, as a clause."""
    if not plans:
        return []
    who = f"the {ordinal(plans[0]['number'])} plan" if len(plans) == 1 else f"{which} ones"
    return [f"{who} said {', '.join(plan['said'] for plan in plans)}"]


def _unrecorded(ledger: Ledger, name: str, study: Study) -> str | None:
    """What the ledger lacks of the runs: the training, or the run table that it gave."""
    file = study.ledger.name
    if not ledger.of("began", name):
        return f"No training under this plan is in {file}."
    runs = file_sha256(study.runs / "runs.parquet")
    if runs not in {entry["runs_sha256"] for entry in ledger.of("trained", name)}:
        return f"The run table is none that {file} has of a training under this plan."
    return None


def _deviation(
    plan: dict[str, Any],
    study: Study,
    seed_pairs: list[tuple[int, int]],
    records: list[dict[str, Any]],
) -> str | None:
    """The first way in which an analysis is not the planned one, as a sentence."""
    params = study.params
    changed = changed_setting(plan, params)
    if changed is not None:
        return f"{changed} is not as planned: params.yaml and the plan differ in it."
    if not records:
        return "No stack of the pairs is on record."
    name, ledger = file_sha256(study.plan), Ledger.read(study.ledger)
    code = _changed_code(ledger, name, records)
    if code is not None:
        return code
    for record in records:
        other = other_settings(plan, record)
        if other:
            return f"Stack {record['name']} was trained with another {other} than planned."
    n = len(seed_pairs)
    allowed = n <= plan["pairs"] if plan["looks"] == "anytime" else n in [*plan["looks"], plan["pairs"]]
    if not allowed:
        return f"{n} pairs were analysed, {plan['pairs']} were planned."
    if seed_pairs != [(seed, seed) for seed in seeds.pool(plan["seed"], "pairs", n)]:
        return f"The pairs analysed are not the first {n} of the pool that was planned."
    if {seed for pair in seed_pairs for seed in pair} & set(plan["pilot"]["init_seeds"]):
        return "Seeds of the pilot are among the pairs analysed."
    names = _names(study.plan, name)
    late = [record["name"] for record in records if record["protocol_sha256"] not in names]
    if late:
        return f"{len(late)} of {len(records)} stacks, {late[0]} first, were not trained under this plan."
    return None


def _changed_code(ledger: Ledger, name: str, records: list[dict[str, Any]]) -> str | None:
    """The files in which the runs' code is not that of the first runs under the plan, as a sentence."""
    began = ledger.of("began", name)
    if not began:
        return None
    first: dict[str, str] = began[0]["code"]
    found = {(file, digest) for record in records for file, digest in (record.get("code") or {}).items()}
    changed = {file for file, digest in found if first.get(file) != digest}
    changed |= first.keys() - {file for file, _ in found}
    if not changed:
        return None
    said = ledger.of("verdict", name)
    came_out = f"result, which said {said[0]['verdict']}" if said else "run"
    spared = "; the networks were not" if all(map(_of_the_engine, changed)) else ""
    return f"{in_words(changed)} changed after the first {came_out}{spared}."


LIBRARY = "infinito/"
NETWORKS = ("infinito/networks/", "infinito/operations/")
LISTED = 3  # files that a sentence names of many


def in_words(files: Iterable[str]) -> str:
    """Files of code as the subject of a sentence, with its verb: the user's own, and what of infinito it was."""
    parts: dict[str, list[str]] = {}
    for file in sorted(files, key=lambda file: (file.startswith(LIBRARY), file)):
        part = "the engine of infinito"
        part = "the networks of infinito" if file.startswith(NETWORKS) else part
        part = "the tasks of infinito" if file.startswith("infinito/tasks/") else part
        parts.setdefault(part if file.startswith(LIBRARY) else "", []).append(file.removeprefix(LIBRARY))
    subjects = [f"{part} ({_listed(some)})" if part else _listed(some) for part, some in parts.items()]
    single = [*parts] == ["the engine of infinito"] or [*map(len, parts.values())] == [1] and "" in parts
    return f"{' and '.join(subjects)} {'was' if single else 'were'}"


def _of_the_engine(file: str) -> bool:
    return file.startswith(LIBRARY) and not file.startswith(NETWORKS)


def _listed(files: list[str]) -> str:
    """The first of many, and how many more there are."""
    more = len(files) - LISTED
    return ", ".join(files[:LISTED]) + (f" and {more} more" if more > 0 else "")
