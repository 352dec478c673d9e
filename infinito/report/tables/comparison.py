"""The comparison: scores, hypotheses, other looks at the same pairs, and what a best-seed report would have claimed."""

from collections.abc import Mapping
from typing import Any

from infinito.report import words
from infinito.report.evidence import Json
from infinito.report.tables.table import ARMS, Table
from infinito.report.words import estimate, interval, number, p_value, plain, signed_percent
from infinito.tasks.measure import KEY, metric_of

OF_RATIOS = ("Mean logarithm of the ratio", "p of the t-test on log ratios")
NOTHING: Json = {"value": None, "ci_low": None, "ci_high": None}


def arms(compare: Json) -> Table:
    """Every score of both arms. In a sequential design only the losses have intervals that allow for its looks."""
    shown, metric = words.value if "sequential" in compare else estimate, metric_of(compare)
    rows = [(f"Test {metric}", *(estimate(compare[arm], 4) for arm in ARMS))]
    scores = compare.get("scores") or {arm: {} for arm in ARMS}
    rows += [
        (words.score_name(key, compare), *(shown(scores[arm].get(key) or NOTHING, 4) for arm in ARMS))
        for key in scores["candidate"]
    ]
    rows.append(("Diverged runs", *(str(compare["diverged"][arm]) for arm in ARMS)))
    return Table(("", *ARMS), rows, "lrr")


def hypotheses(compare: Json) -> Table:
    """The family of tests, with p-values that pay for testing so many."""
    first = f"Test {metric_of(compare).name}"
    rows = [
        (
            row["arm"],
            first if row["metric"] == KEY else words.score_name(row["metric"], compare),
            estimate(row["difference"]),
            p_value(row["p_value"]),
            p_value(row["p_holm"]),
            p_value(row["p_max_t"]),
            p_value(row["p_equivalence_holm"]),
        )
        for row in compare["family"]
    ]
    head = ("Arm", "Metric", "Gain over the baseline", "p alone", "p, Holm", "p, max t", "Equivalence, Holm")
    return Table(head, rows, "llrrrrr")


def ablations(compare: Json) -> Table:
    """The verdict on every arm, the candidate first."""
    rows = [
        (
            arm,
            compare["networks"][arm],
            found["verdict"],
            estimate(found.get("difference_simultaneous", found["difference"])),
            words.decided_by(found | {"alpha": compare["alpha"]}),
            f"{found['wins']} of {found['n_pairs']}",
        )
        for arm, found in {"candidate": compare, **compare["ablations"]}.items()
    ]
    return Table(("Arm", "Network", "Verdict", "Gain over the baseline", "p", "Wins"), rows, "lllrrr")


def secondary(compare: Json) -> Table:
    """Other looks at the same pairs; none of them decides."""
    second, equal = compare["secondary"], compare["equivalence"]
    margin, wide = plain(equal["smallest_effect"]), f"{100 * (1 - 2 * compare['alpha']):g}%"
    look = compare.get("sequential")
    if look:
        wide = words.confidence(compare)
    meaningful = second["meaningfully_better"]
    rows = [
        ("Mean difference in units of its spread (Hedges’ g)", estimate(compare["effect_size"])),
        ("Mean logarithm of the ratio of losses", estimate(compare["relative_difference"])),
        ("Pairs needed to find a difference as large as the observed one (80% power)", _count(compare)),
        (
            "Meaningfully better: probability of improvement shown above 0.5, and at least 0.75",
            words.UNKNOWN if meaningful is None else "yes" if meaningful else "no",
        ),
        (f"Equivalence within ±{margin}: p of two one-sided t-tests", p_value(equal["p_value"])),
        (f"Equivalence: {wide} interval of the mean difference", interval(equal)),
        (
            f"Posterior probability that the mean difference lies within ±{margin}",
            _some(second, "probability_equivalent"),
        ),
        (f"Posterior probability that it is above {margin}", _some(second, "probability_better")),
        ("p of the sign-flip permutation test", p_value(second["sign_flip_p"])),
        ("p of Wilcoxon’s signed-rank test", p_value(second["wilcoxon_p"])),
        ("p of the sign test", p_value(second["sign_test_p"])),
        ("p of the t-test on log ratios", p_value(second["log_ratio_p"])),
        ("p of McNemar’s test: does one arm diverge more often?", p_value(None if look else compare["mcnemar_p"])),
        ("Skewness of the differences", number(compare["skewness"], 2)),
    ]
    if metric_of(compare).better == "higher":  # its losses are negative, and have no ratio to speak of
        rows = [row for row in rows if not row[0].startswith(OF_RATIOS)]
    if second["bootstrap_t"]:
        rows.append(("Bootstrap-t interval, because the differences are skewed", interval(second["bootstrap_t"])))
    return Table(("Secondary analysis", ""), rows, "lr")


def _count(compare: Json) -> str:
    needed = compare["pairs_for_80_percent_power"]
    return words.UNKNOWN if needed is None else f"{needed:,}"


def _some(values: Mapping[str, Any], key: str) -> str:
    return number(values.get(key))


def claims(compare: Json) -> Table:
    """What a best-seed report would have claimed, next to what our rules say of the same runs and of all pairs."""
    claimed, pilot = compare["report_protocol"], compare.get("pilot")
    ours = [("This study", compare)]
    if pilot:
        ours.insert(0, ("Our rules, same runs", pilot | {"alpha": compare["alpha"]}))
    unit = words.short(metric_of(compare).unit)
    mean, sd = (signed_percent(claimed[key]) for key in ("mean_percent", "sd_percent"))

    def wins(found: Json) -> str:
        return f"{found['wins']} of {found.get('n_pairs', found.get('n'))}"

    rows = [
        ("Pairs of runs", str(claimed["n"]), *(f"{found['n_pairs']}" for _, found in ours)),
        ("Measured on", "last training batch", *("whole test set" for _ in ours)),
        (
            "Mean difference",
            f"{mean} ± {sd.lstrip('+')}",
            *(f"{estimate(found.get('difference_simultaneous', found['difference']))} {unit}" for _, found in ours),
        ),
        ("Wins", wins(claimed), *(wins(found) for _, found in ours)),
        ("p", p_value(claimed["p_value"]), *(words.decided_by(found) for _, found in ours)),
        (
            "Headline",
            f"“best seed {claimed['best_seed']}: {signed_percent(claimed['best_percent'])}”",
            *(found["verdict"] for _, found in ours),
        ),
        (
            f"Best of {claimed['n']} by luck alone",
            signed_percent(claimed["expected_best_by_luck"]),
            *("no seed picked" for _ in ours),
        ),
    ]
    if pilot and pilot["secondary"]["bootstrap_t"]:
        shown = (interval(found["secondary"]["bootstrap_t"] or NOTHING) for _, found in ours)
        rows.append(("Bootstrap-t interval, for skewed differences", words.UNKNOWN, *shown))
    return Table(("", "Best-seed report", *(name for name, _ in ours)), rows, "l" * len(rows[0]))


def reports(compare: Json) -> Table:
    """One best-seed report after another."""
    rows = [
        (
            words.pairs_of(claimed),
            f"{signed_percent(claimed['mean_percent'])} ± {signed_percent(claimed['sd_percent']).lstrip('+')}",
            f"{claimed['wins']} of {claimed['n']}",
            p_value(claimed["p_value"]),
            signed_percent(claimed["best_percent"]),
            signed_percent(claimed["expected_best_by_luck"]),
        )
        for claimed in compare["report_protocol_repeated"]
    ]
    return Table(("Pairs", "Mean", "Wins", "p", "Best seed", "Best by luck alone"), rows, "lrrrrr")
