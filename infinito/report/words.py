"""Numbers and verdicts as people read them."""

import math
from collections.abc import Mapping
from typing import Any

from infinito.tasks import Metric
from infinito.tasks.measure import extreme, moved

UNKNOWN = "–"
MINUS = "−"


def fixed(x: float, decimals: int) -> str:
    """A number with so many decimals; never a negative zero."""
    text = f"{x:,.{decimals}f}"
    return (MINUS + text[1:] if float(text.replace(",", "")) else text[1:]) if text.startswith("-") else text


def number(x: float | None, digits: int = 3) -> str:
    """A number with so many significant digits; a dash for what is not there."""
    if x is None or not math.isfinite(x):
        return UNKNOWN
    if x == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(x)))
    if not -5 <= magnitude < 9:
        return f"{x:.{digits - 1}e}".replace("-", MINUS)
    return fixed(x, max(digits - 1 - magnitude, 0))


def signed(x: float | None, digits: int = 3) -> str:
    """A difference: `number` with its sign."""
    text = number(x, digits)
    return f"+{text}" if x is not None and math.isfinite(x) and x > 0 else text


def plain(x: float) -> str:
    """A declared number, as it was declared."""
    return f"{x:g}".replace("-", MINUS)


def _decimals(e: Mapping[str, Any]) -> int | None:
    """Decimals that show the width of the interval to 2 or 3 digits; None where that makes no readable number."""
    low, high = e["ci_low"], e["ci_high"]
    if low is None or high is None or not high > low:
        return None
    decimals = max(math.ceil(1.5 - math.log10(high - low)), 0)
    if e.get("value") and abs(e["value"]) < 10.0 ** (1 - decimals):
        decimals += 1  # or a value near one end of its interval would keep a single digit
    return decimals if decimals <= 7 else None


def interval(e: Mapping[str, Any]) -> str:
    """[low, high] of an estimate; a dash where there is none."""
    if e["ci_low"] is None and e["ci_high"] is None:
        return UNKNOWN
    decimals = _decimals(e)
    limits = (number(x) if decimals is None or not x else fixed(x, decimals) for x in (e["ci_low"], e["ci_high"]))
    return "[{}, {}]".format(*limits)


def value(e: Mapping[str, Any], digits: int = 3) -> str:
    """The value of an estimate, to the decimals of its interval."""
    decimals = _decimals(e)
    return number(e["value"], digits) if decimals is None or not e["value"] else fixed(e["value"], decimals)


def estimate(e: Mapping[str, Any] | None, digits: int = 3) -> str:
    """value [low, high]; without an interval just the value."""
    if e is None or e["value"] is None:
        return UNKNOWN
    return value(e, digits) if interval(e) == UNKNOWN else f"{value(e, digits)} {interval(e)}"


def percent(x: float | None) -> str:
    """A share of 1, in percent."""
    if x is None or not math.isfinite(x):
        return UNKNOWN
    return "<\u00a01%" if 0 < x < 0.01 else f"{100 * x:.0f}%"


def signed_percent(x: float | None) -> str:
    """A difference that is in percent already."""
    return UNKNOWN if x is None or not math.isfinite(x) else f"{'+' if x > 0 else ''}{fixed(x, 2)}%"


def share(part: Mapping[str, Any]) -> str:
    """A source's share of the variance with its interval; without an interval just the share."""
    if part["share"] is None or part["share_ci_low"] is None:
        return percent(part["share"])
    return f"{percent(part['share'])} [{', '.join(percent(part[f'share_ci_{end}']) for end in ('low', 'high'))}]"


def times(x: float) -> str:
    return f"×\u00a0{number(x, 2)}"


def p_value(p: float | None) -> str:
    if p is None or not math.isfinite(p):
        return UNKNOWN
    return "<\u00a00.001" if p < 0.001 else number(p, 2)


def p_is(p: float | None) -> str:
    """A p-value as part of a sentence."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def capital(text: str) -> str:
    """A text that begins with a capital letter."""
    return text[:1].upper() + text[1:]


def plural(name: str) -> str:
    """Several of a metric."""
    return f"{name}es" if name.endswith("s") else f"{name[:-1]}ies" if name.endswith("cy") else f"{name}s"


def short(unit: str) -> str:
    """A unit where there is little room: without its "per what"."""
    return unit.partition(" per ")[0]


def meaning(metric: Metric) -> str:
    """What a metric is, after its name: "Loss is ..."."""
    what, _, part = metric.unit.partition(" per ")
    if what == "nats" and metric.better == "lower":
        right, gets = ("the right token", "right tokens get") if part == "token" else ("the right answer", "it gets")
        return (
            f"is the mean of −ln(probability of {right}), in nats; lower is better. 0.01 nats less means that "
            f"{gets} about 1% more probability."
        )
    return f"is measured in {metric.unit}; {metric.better} is better."


def verdict_words(smallest_effect: float, metric: Metric) -> dict[str, str]:
    """What each verdict says."""
    margin = f"±{plain(smallest_effect)}"
    better, worse = moved(metric, 1), moved(metric, -1)
    return {
        "BETTER": f"The candidate's mean {metric.name} is shown to be {better}, and the gain is not shown to be "
        "negligible.",
        "WORSE": f"The candidate's mean {metric.name} is shown to be {worse}, and the damage is not shown to be "
        "negligible.",
        "EQUIVALENT": f"The mean difference is shown to lie inside {margin} {metric.unit}, declared too small to "
        "matter before the runs. It may still differ from zero.",
        "INCONCLUSIVE": "Nothing is shown, in either direction. This never means “no difference”: these runs "
        "cannot tell.",
    }


STATUS_WORDS = {
    "GOLDEN_CONFIRMED": "On data seeds it had never met, the seed beat init seeds it had never met, by more than "
    "chance explains, and its gain is not shown to be useless.",
    "GOLDEN_REFUTED": "On fresh seeds its gain is shown to be smaller than what was declared useful.",
    "NOT_CONFIRMED": "On fresh seeds it is not shown to be better than other init seeds, nor shown to be useless. "
    "Treat it as any other seed.",
    "INVALID": "The confirmation broke its own rules, so its figures prove nothing, whichever way they point.",
}

SOURCES = {
    "init": "initial weights",
    "data": "data order and noise",
    "interaction": "combination of both",
    "noise": "noise seeds",
    "nondeterminism": "reruns of the same seeds",
    "residual": "the rest",
    "interaction_and_residual": "combination and rest",
}


def source(name: str, components: Mapping[str, Any]) -> str:
    """A source of variance, as one of all components of a grid."""
    # with noise seeds of its own the noise no longer comes from the data seed
    return "data order" if name == "data" and "noise" in components else SOURCES[name]


FOUND_BY = {
    "selected": "{extreme} mean validation {metric} on the grid",
    "best of ten": "best percentage of ten seeds, as a best-seed report picks",
    "best cell": "best percentage of all cells of the grid",
    "checkpoint": "initial weights from a file",
}


def found_by(name: str, metric: Metric) -> str:
    """How a candidate of the golden rule was found; several ways may have found the same one."""
    said = "; ".join(FOUND_BY.get(way, way) for way in name.split(" and "))
    return said.replace("{extreme}", extreme(metric)).replace("{metric}", metric.name)


def who(decision: Mapping[str, Any]) -> str:
    """What was put to the golden rule."""
    seed = decision["golden_init_seed"]
    return "the weights of the file" if seed is None else f"seed {seed}"


def pairs_of(claimed: Mapping[str, Any]) -> str:
    """The pairs behind one of several reports, counted from 1."""
    return f"{claimed['first_pair'] + 1}–{claimed['first_pair'] + claimed['n']}"


def confidence(compare: Mapping[str, Any]) -> str:
    """Confidence of the intervals behind a verdict: that of its look in a sequential design."""
    level = (compare.get("sequential") or {}).get("level")
    return f"{100 * (1 - (compare['alpha'] if level is None else level)):.6g}%"


def decided_by(compare: Mapping[str, Any]) -> str:
    """What the verdict's test found: adjusted for its family, or what its look goes by."""
    look = compare.get("sequential")
    if look is None:
        return p_value(compare["p_adjusted"]) + (" (Holm)" if compare["hypotheses"] > 1 else "")
    if look["level"] is None:
        return f"e = {number(look['e_value'])}"
    return f"{p_value(look['p_value'])} (level of this look: {number(look['level'], 2)})"


SCORES = {  # of a text, from its loss; the task has the titles of its own
    "validation_perplexity_per_token": "Validation perplexity per token",
    "validation_perplexity_per_word": "Validation perplexity per word",
    "validation_bits_per_byte": "Validation bits per byte",
    "test_perplexity_per_token": "Test perplexity per token",
    "test_perplexity_per_word": "Test perplexity per word",
    "test_bits_per_byte": "Test bits per byte",
}


def score_name(key: str, compare: Mapping[str, Any]) -> str:
    """What a score is called in a table."""
    return SCORES.get(key) or compare.get("titles", {}).get(key) or key.replace("_", " ").capitalize()
