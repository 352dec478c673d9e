"""Is it a fair comparison? What differs between the arms beside the network, from params.yaml alone."""

from collections.abc import Mapping
from typing import Any

from infinito import params

AMOUNT = {"steps": "steps", "train_examples": "training examples"}


def fairness(train: params.AnyTrain) -> dict[str, Any]:
    """What every arm is and how it is trained, and in what it is not treated as the baseline.

    Args:
        train: the section of params.yaml.

    Returns:
        JSON-ready dict: arms, for every arm network, settings, steps, train_examples (seen, all steps together), tuned
        (trainings that were looked at before; None: not stated), keep (which weights count: last or best); and keys, of
        the recipe, dotted, in which any arm differs from the baseline: {key: {arm: value}}, None where an arm's recipe
        does not have it. Of the arms but the baseline also differs (keys) and sentence. Where the arms are commands
        an arm has only command, tuned, differs and sentence.
    """
    if isinstance(train, params.Commands):
        return _of_commands(train)
    recipes = {arm: _recipe(train.of(arm)) for arm in train.arms}
    arms = {arm: _facts(train, arm) for arm in train.arms}
    other = recipes["baseline"]
    differs = {
        arm: [key for key in {**other, **recipe} if recipe.get(key) != other.get(key)]
        for arm, recipe in recipes.items()
        if arm != "baseline"
    }
    keys = list(dict.fromkeys(key for own in differs.values() for key in own))
    result = {"arms": arms, "keys": {key: {arm: recipes[arm].get(key) for arm in arms} for key in keys}}
    for arm, own in differs.items():
        arms[arm]["differs"] = own
        arms[arm]["sentence"] = _sentence(arm, result)
    return result


def _of_commands(train: params.Commands) -> dict[str, Any]:
    """Of a command nobody but its script knows the recipe."""
    arms: dict[str, dict[str, Any]] = {
        arm: {"command": own.command, "tuned": None if own.tuned is None else own.tuned.trials}
        for arm, own in train.arms.items()
    }
    other = arms["baseline"]["tuned"]
    for arm, facts in arms.items():
        if arm == "baseline":
            continue
        unlike = facts["tuned"] != other
        tuned = f"; tuning {tuning(facts['tuned'])} (baseline: {tuning(other)})" if unlike else ""
        facts |= {
            "differs": [],
            "sentence": f"The {arm} differs from the baseline by its command{tuned}; whether both train for as many "
            "steps and see as much data only the script says.",
        }
    return {"arms": arms, "keys": {}}


def _recipe(train: params.Train) -> dict[str, Any]:
    """All keys of a recipe, dotted."""
    content = train.model_dump(include={*params.RECIPE})
    return dict(_flat(content, ""))


def _flat(content: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in content.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return found


def _facts(train: params.Train, arm: str) -> dict[str, Any]:
    design, how = train.arms[arm], train.of(arm)
    return {
        "network": design.network,
        "settings": design.settings,
        "steps": how.steps,
        "train_examples": how.steps * how.batch,
        "tuned": None if design.tuned is None else design.tuned.trials,
        "keep": how.keep,
    }


def _sentence(arm: str, result: Mapping[str, Any]) -> str | None:
    """What differs beyond network and settings; None where nothing does."""
    mine, other, keys = result["arms"][arm], result["arms"]["baseline"], result["keys"]
    said = [
        f"{key} {shown(keys[key][arm])} (baseline: {shown(keys[key]['baseline'])})"
        for key in mine["differs"]
        if key != "steps"
    ]
    if mine["tuned"] != other["tuned"]:
        said.append(f"tuning {tuning(mine['tuned'])} (baseline: {tuning(other['tuned'])})")
    if not said and not mine["differs"]:
        return None
    said = said or ["steps"]
    return f"The {arm} differs from the baseline in more than its network: {', '.join(said)}. {amount(arm, result)}"


def amount(arm: str, result: Mapping[str, Any]) -> str:
    """Whether an arm gets as many steps and training examples as the baseline, as a sentence."""
    mine, other = ({key: facts[key] for key in AMOUNT} for facts in (result["arms"][arm], result["arms"]["baseline"]))
    if mine == other:
        return "Both train for as many steps and see as many training examples."
    steps, examples = (
        f"as many {what} ({mine[key]:,})"
        if mine[key] == other[key]
        else f"{mine[key]:,} {what} (baseline: {other[key]:,})"
        for key, what in AMOUNT.items()
    )
    return f"It trains for {steps} and sees {examples}."


def tuning(trials: int | None) -> str:
    """How an arm came to its recipe."""
    return "not stated" if trials is None else f"{trials:,} trial{'' if trials == 1 else 's'}"


def shown(value: Any) -> str:
    """A value of params.yaml as text."""
    return "not set" if value is None else str(value)
