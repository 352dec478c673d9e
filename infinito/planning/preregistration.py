"""Preregistration: what was promised before the runs, under the name of its hash, and was it then done?

A plan (`plan.make`) is written before the confirmatory pairs are trained, and named by the hash of its content. The
training stage records that hash with every stack, so `status` can tell a planned verdict from an exploratory one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from infinito import seeds
from infinito.params import Params, Study, recipe
from infinito.storage import canonical, read_json, sha256, write_json

SCHEMA = "infinito/plan/1"
_PLAN_KEYS = {
    *("study", "created", "arms", "train", "metrics", "alpha", "smallest_effect", "data_sha256"),
    *("effect", "power", "pairs", "looks", "seed", "pilot", "cost"),
}


def promise(params: Params) -> dict[str, Any]:
    """The part of params.yaml that a plan fixes, beside pairs, looks and seed."""
    train = params.train
    best = any(train.of(arm).keep == "best" for arm in train.arms)  # even if the shared recipe keeps the last
    return {
        "study": params.study,
        "arms": {name: arm.promised for name, arm in train.arms.items()},
        "train": train.recipe | ({"curve_every": train.curve_every} if best else {}),
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


def plan_sha256(plan: dict[str, Any]) -> str:
    """The name of a plan: hash of its canonical JSON, so the order of keys does not matter."""
    return sha256(canonical(plan))


def write(file: Path, plan: dict[str, Any], *, replace: bool = False) -> tuple[dict[str, Any], str]:
    """Write a plan, whole or not at all. A plan that promises the same keeps its date, its prices and so its hash.

    Returns:
        (the plan that is in the file now, its hash).

    Raises:
        ValueError: the file holds another plan, and `replace` is not set; or it is no plan.
    """
    if file.exists() and not replace:
        old, old_sha256 = read(file)
        changed = next((key for key in plan if key not in ("created", "cost") and old[key] != plan[key]), None)
        if changed is None:
            return old, old_sha256
        raise ValueError(
            f"{file}: holds another plan, of {old['created']}, which differs in {changed}; allowed: --replace, after "
            "which no verdict can be called planned by the old one"
        )
    name = plan_sha256(plan)
    write_json(file, {"schema": SCHEMA, "sha256": name, "plan": plan})
    return plan, name


def read(file: Path) -> tuple[dict[str, Any], str]:
    """A plan and its hash.

    Raises:
        ValueError: no such file, not JSON, not a plan, or changed after it was hashed.
    """
    if not file.exists():
        raise ValueError(f"{file}: no such file; infinito plan writes it")
    content = read_json(file)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("plan"), dict):
        raise ValueError(f"{file}: not a plan ({SCHEMA}); infinito plan writes one")
    plan = content["plan"]
    if content.get("sha256") != plan_sha256(plan):
        raise ValueError(
            f"{file}: was changed after it was written: its content has the hash {plan_sha256(plan)[:16]}.., "
            f"it says {str(content.get('sha256'))[:16]}.."
        )
    missing = _PLAN_KEYS - plan.keys()
    if missing:
        raise ValueError(f"{file}: plan.{min(missing)}: missing key; infinito plan writes it")
    return plan, content["sha256"]


def registered(study: Study) -> dict[str, Any] | None:
    """The plan that train.plan names; None if it is null.

    Raises:
        ValueError: train.plan is set, but plan.json is missing, is no plan, was changed, or has another hash.
    """
    named = study.params.train.plan
    if named is None:
        return None
    plan, found = read(study.plan)
    if found != named:
        raise ValueError(f"{study.plan}: is the plan {found[:16]}.., but train.plan in params.yaml is {named[:16]}..")
    return plan


def status(study: Study, pairs: pd.DataFrame, records: Mapping[str, dict[str, Any]]) -> dict[str, str | None]:
    """Is the verdict on these pairs the one that was planned?

    Args:
        study: whose params name the plan by its hash (train.plan) and whose folder holds it.
        pairs: the analysed pairs or their runs, with columns init_seed and data_seed.
        records: stack.json of every stack that these runs come from, both arms, by its id.

    Returns:
        {status: planned or exploratory, reason: one sentence, plan_sha256: the plan's hash or None}.

    Raises:
        ValueError: see `registered`.
    """
    plan, named = registered(study), study.params.train.plan
    if plan is None or named is None:
        reason = "No plan was registered before the runs: train.plan is null."
        return {"status": "exploratory", "reason": reason, "plan_sha256": None}
    seed_pairs = sorted({(int(i), int(j)) for i, j in zip(pairs["init_seed"], pairs["data_seed"], strict=True)})
    deviation = _deviation(plan, named, study.params, seed_pairs, [*records.values()])
    if deviation is not None:
        return {"status": "exploratory", "reason": deviation, "plan_sha256": named}
    reason = (
        f"The plan of {plan['created']} was registered before the first of the {len(seed_pairs)} pairs was trained, "
        "and nothing it fixes was changed."
    )
    return {"status": "planned", "reason": reason, "plan_sha256": named}


def _deviation(
    plan: dict[str, Any],
    name: str,
    params: Params,
    seed_pairs: list[tuple[int, int]],
    records: list[dict[str, Any]],
) -> str | None:
    """The first way in which an analysis is not the planned one, as a sentence."""
    changed = changed_setting(plan, params)
    if changed is not None:
        return f"{changed} is not as planned: params.yaml and the plan differ in it."
    if not records:
        return "No stack of the pairs is on record."
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
    late = [record["name"] for record in records if record["protocol_sha256"] != name]
    if late:
        return f"{len(late)} of {len(records)} stacks, {late[0]} first, were not trained under this plan."
    return None
