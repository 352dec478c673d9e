"""The tables of the report: pure functions of results, every cell a text."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infinito.report import words
from infinito.report.evidence import Evidence, Json
from infinito.report.words import estimate, interval, number, p_value, percent, plain, signed, signed_percent

ARMS = ("candidate", "baseline")
LISTED_RUNS = 1000


@dataclass(frozen=True)
class Table:
    """A head, rows of as many cells, and how each column is aligned: l or r."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    align: str


def arms(compare: Json) -> Table:
    """Every score of both arms."""
    rows = [("Test loss, nats per token", *(estimate(compare[arm], 4) for arm in ARMS))]
    scores = compare.get("scores") or {arm: {} for arm in ARMS}
    rows += [
        (words.score_name(key), *(estimate(scores[arm].get(key), 4) for arm in ARMS)) for key in scores["candidate"]
    ]
    rows.append(("Diverged runs", *(str(compare["diverged"][arm]) for arm in ARMS)))
    return Table(("", *ARMS), rows, "lrr")


def secondary(compare: Json) -> Table:
    """Other looks at the same pairs; none of them decides."""
    second, equal = compare["secondary"], compare["equivalence"]
    margin, wide = plain(equal["smallest_effect"]), f"{100 * (1 - 2 * compare['alpha']):g}%"
    rows = [
        ("Mean difference in units of its spread (Hedges’ g)", estimate(compare["effect_size"])),
        ("Mean logarithm of the ratio of losses", estimate(compare["relative_difference"])),
        ("Pairs needed to find a difference as large as the observed one (80% power)", _count(compare)),
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
        ("Skewness of the differences", number(compare["skewness"], 2)),
    ]
    if second.get("bootstrap_t"):
        rows.append(("Bootstrap-t interval, because the differences are skewed", interval(second["bootstrap_t"])))
    return Table(("Secondary analysis", ""), rows, "lr")


def _count(compare: Json) -> str:
    needed = compare["pairs_for_80_percent_power"]
    return words.UNKNOWN if needed is None else f"{needed:,}"


def _some(values: Mapping[str, Any], key: str) -> str:
    return number(values.get(key))


def claims(compare: Json) -> Table:
    """What a best-seed report would have claimed, next to what holds."""
    claimed, n = compare["report_protocol"], compare["n_pairs"]
    mean, sd = (signed_percent(claimed[key]) for key in ("mean_percent", "sd_percent"))
    rows = [
        ("Measured on", "the last training batch of each run", "the whole test set, at the last step"),
        ("Mean difference", f"{mean} ± {sd.lstrip('+')}", f"{estimate(compare['difference'])} nats per token"),
        ("Wins", f"{claimed['wins']} of {claimed['n']}", f"{compare['wins']} of {n}"),
        ("p", p_value(claimed["p_value"]), p_value(compare["p_value"])),
        (
            "Headline",
            f"“best seed {claimed['best_seed']}: {signed_percent(claimed['best_percent'])}”",
            f"{compare['verdict']}, over all {n} pairs",
        ),
        (
            f"Best of {claimed['n']} by luck alone",
            signed_percent(claimed["expected_best_by_luck"]),
            "no seed was picked",
        ),
    ]
    return Table(("", "Best-seed report", "This study"), rows, "lll")


def components(attribute: Json) -> Table:
    """The variance by source, as shares and as standard deviations."""
    rows = []
    for of in (*ARMS, "difference"):
        for source, part in attribute[of]["components"].items():
            sd = part | {key: None if part[key] is None else part[key] ** 0.5 for key in ("value", "ci_low", "ci_high")}
            p = attribute[of].get(f"p_{source}")
            label = of if source == "init" else ""
            rows.append((label, words.SOURCES[source], percent(part["share"]), estimate(sd, 2), p_value(p)))
    return Table(("Of", "Source", "Share", "Standard deviation", "p"), rows, "llrrr")


def winner(golden: Json) -> Table:
    """The gain of the selected seed: from what was hoped to what held."""
    best, selection = golden["selection"]["best"], golden["selection"]
    bounds = f"{100 * (1 - golden['alpha']):g}% bounds"
    worth = "proves nothing" if golden["status"] == "INVALID" else "the claim"
    rows = [
        ("On the grid it was selected on", signed(best["naive_gain"]), best["naive_gain_is"]),
        (
            "Best of the grid expected by luck alone",
            signed(selection["expected_best_by_luck"]),
            "if no seed were better",
        ),
        ("Shrunken estimate (BLUP)", signed(best["blup_gain"]), "the grid’s best guess, selection allowed for"),
        (
            "Confirmation on fresh data seeds",
            signed(golden["difference"]["value"]),
            f"{bounds} {interval(golden['difference'])}, p = {p_value(golden['p_value'])}: {worth}",
        ),
    ]
    return Table((f"Gain of init seed {golden['golden_init_seed']}", "Nats per token", ""), rows, "lrl")


def ranking(golden: Json) -> Table:
    """All init seeds of the grid, best first."""
    seeds = golden["selection"]["init_seeds"]
    rows = [
        (
            str(place),
            str(seeds[entry["index"]]),
            number(entry["mean_loss"], 4),
            signed(entry["naive_gain"]),
            signed(entry["blup_gain"]),
        )
        for place, entry in enumerate(golden["selection"]["ranking"], 1)
    ]
    return Table(
        ("", "Init seed", "Mean validation loss", "Gain, selection-biased", "Gain, shrunken (BLUP)"), rows, "lrrrr"
    )


def ensemble(ensembles: Json) -> Table:
    """Loss and gains by size; a single member gains nothing."""
    rows = []
    for key, label in (
        ("loss", "Test loss"),
        ("gain_over_best_member", "Gain over best member"),
        ("gain_over_average_member", "Gain over average member"),
    ):
        for pair in zip(*(ensembles[arm]["curve"] for arm in ARMS), strict=True):
            if key == "loss" or pair[0]["size"] > 1:
                rows.append(
                    (label, str(pair[0]["size"]), *(estimate(entry[key], 4 if key == "loss" else 3) for entry in pair))
                )
                label = ""
    return Table(("", "Size", *ARMS), rows, "lrrr")


@dataclass(frozen=True)
class Check:
    """One thing that must be right for the figures to be worth reading; ok is None where it can't be told."""

    what: str
    found: str
    goal: str
    ok: bool | None


def checks(evidence: Evidence) -> list[Check]:
    """Can these numbers be trusted?"""
    compare, golden, runs, stacks = evidence.compare, evidence.golden, evidence.runs, evidence.stacks
    noise, skewness = compare["evaluation_noise"]["ratio"], compare["skewness"]
    diverged = int(runs["diverged"].sum())
    data = {compare["data_sha256"], evidence.protocol["protocol"]["data_sha256"]} | _all(stacks, "data_sha256")
    networks = {record["arm"]["network"] for record in stacks}
    code = max(len({r["code_sha256"] for r in stacks if r["arm"]["network"] == network}) for network in networks)
    versions, devices = len({record["versions"]["torch"] for record in stacks}), len(_all(stacks, "device"))
    return [
        Check("Pairs of runs", str(compare["n_pairs"]), "at least 10", compare["n_pairs"] >= 10),
        Check(
            "Noise of the test set, relative to the spread between seeds",
            number(noise, 2),
            "below 0.1",
            None if noise is None else noise < 0.1,
        ),
        Check("Diverged runs", f"{diverged} of {len(runs):,}", "0", diverged == 0),
        Check(
            "Skewness of the differences",
            number(skewness, 2),
            f"{words.MINUS}1 to 1",
            None if skewness is None else abs(skewness) <= 1,
        ),
        Check(
            "Protocol of the confirmation",
            "registered before its runs" if golden["registered"] else "not registered before its runs",
            "registered",
            bool(golden["registered"]),
        ),
        Check("Data behind all runs and results", _distinct(len(data), "version"), "1 version", len(data) == 1),
        Check(
            "Code, PyTorch and device behind all runs",
            f"{_distinct(code, 'version')} of code, {versions} of PyTorch, {_distinct(devices, 'device')}",
            "1 of each",
            code == versions == devices == 1,
        ),
    ]


def _distinct(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _all(stacks: Iterable[Json], key: str) -> set[str]:
    return {str(record[key]) for record in stacks if record.get(key) is not None}


def check_table(found: list[Check]) -> Table:
    mark = {True: "✓\u00a0met", False: "✗\u00a0not\u00a0met", None: words.UNKNOWN}
    rows = [(check.what, check.found, check.goal, mark[check.ok]) for check in found]
    return Table(("Check", "Found", "Goal", ""), rows, "llll")


def provenance(evidence: Evidence) -> Table:
    """Where the numbers come from."""
    stacks, runs = evidence.stacks, evidence.runs
    finished = sorted(_all(stacks, "finished"))
    changed = any(record.get("git_diff_sha256") for record in stacks)
    revisions = ", ".join(sorted(_all(stacks, "git_revision"))) or "not in a git repository"
    units = {"examples": "examples", "blocks": "blocks", "scored_tokens": "tokens", "words": "words", "bytes": "bytes"}
    splits = "; ".join(
        f"{name}: " + ", ".join(f"{split[key]:,} {unit}" for key, unit in units.items() if key in split)
        for name, split in evidence.manifest["splits"].items()
    )
    rows = [
        ("Git revision", revisions + (", with uncommitted changes" if changed else "")),
        ("Code, SHA-256", ", ".join(sorted(_all(stacks, "code_sha256")))),
        ("Data, SHA-256", evidence.compare["data_sha256"]),
        ("Splits", splits),
        ("Runs", f"{len(runs):,} in {len(stacks):,} stacks"),
        ("Training time, all stacks added up", words.duration(sum(record["wall_seconds"] for record in stacks))),
        ("Trained between (UTC)", _between(finished)),
        ("Device", ", ".join(sorted(_all(stacks, "device")))),
        ("Processor", ", ".join(sorted(_all(stacks, "processor")))),
        ("Compiled", ", ".join(sorted({"yes" if record.get("compiled") else "no" for record in stacks}))),
    ]
    versions: dict[str, set[str]] = {}
    for record in stacks:
        for package, version in record["versions"].items():
            versions.setdefault(package, set()).add(version or "not installed as a package")
    rows.append(("Versions", ", ".join(f"{name} {' / '.join(sorted(found))}" for name, found in versions.items())))
    return Table(("", ""), rows, "ll")


def _between(finished: list[str]) -> str:
    if not finished:
        return words.UNKNOWN
    first, last = (moment[:16].replace("T", " ") for moment in (finished[0], finished[-1]))
    return first if first == last else f"{first} and {last}"


def settings(evidence: Evidence) -> Table:
    """All of params.yaml."""
    rows = [(key, text) for key, text in _flat(evidence.params.model_dump())]
    return Table(("Key", "Value"), rows, "ll")


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "" if value is None else str(value)


def runs(evidence: Evidence) -> Table:
    """The runs behind every figure, the first thousand."""
    columns = ["run_id", "design", "arm", "init_seed", "data_seed", "val_loss", "test_loss", "last_batch_loss"]
    shown = evidence.runs.sort_values(["design", "arm", "init_seed", "data_seed"], kind="stable").head(LISTED_RUNS)
    rows = [
        tuple(number(cell, 5) if isinstance(cell, float) else str(cell) for cell in row[:-1])
        + ("diverged" if row[-1] else "",)
        for row in shown[[*columns, "diverged"]].itertuples(index=False, name=None)
    ]
    head = ("Run", "Design", "Arm", "Init seed", "Data seed", "Validation", "Test", "Last batch", "")
    return Table(head, rows, "lllrrrrrl")
