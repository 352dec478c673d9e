"""The tables of the report: pure functions of results, every cell a text."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infinito.report import words
from infinito.report.evidence import Evidence, Json
from infinito.report.words import estimate, interval, number, p_value, plain, signed, signed_percent, times

ARMS = ("candidate", "baseline")
QUANTITIES = (*ARMS, "difference")
LISTED_RUNS = 1000
NOTHING: Json = {"value": None, "ci_low": None, "ci_high": None}


@dataclass(frozen=True)
class Table:
    """A head, rows of as many cells, and how each column is aligned: l or r."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    align: str


def arms(compare: Json) -> Table:
    """Every score of both arms. In a sequential design only the losses have intervals that allow for its looks."""
    shown = words.value if "sequential" in compare else estimate
    rows = [("Test loss, nats per token", *(estimate(compare[arm], 4) for arm in ARMS))]
    scores = compare.get("scores") or {arm: {} for arm in ARMS}
    rows += [
        (words.score_name(key), *(shown(scores[arm].get(key) or NOTHING, 4) for arm in ARMS))
        for key in scores["candidate"]
    ]
    rows.append(("Diverged runs", *(str(compare["diverged"][arm]) for arm in ARMS)))
    return Table(("", *ARMS), rows, "lrr")


def hypotheses(compare: Json) -> Table:
    """The family of tests, with p-values that pay for testing so many."""
    rows = [
        (
            row["arm"],
            words.score_name(row["metric"]),
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
    mean, sd = (signed_percent(claimed[key]) for key in ("mean_percent", "sd_percent"))

    def wins(found: Json) -> str:
        return f"{found['wins']} of {found.get('n_pairs', found.get('n'))}"

    rows = [
        ("Pairs of runs", str(claimed["n"]), *(f"{found['n_pairs']}" for _, found in ours)),
        ("Measured on", "last training batch", *("whole test set" for _ in ours)),
        (
            "Mean difference",
            f"{mean} ± {sd.lstrip('+')}",
            *(f"{estimate(found.get('difference_simultaneous', found['difference']))} nats" for _, found in ours),
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


def _parts(attribute: Json) -> Iterator[tuple[str, str, str, Json, Json]]:
    """Every component of the variance: of what (named once), its source and the source's key, itself, all of them."""
    for of in QUANTITIES:
        components = attribute[of]["components"]
        for i, (key, part) in enumerate(components.items()):
            yield "" if i else of, words.source(key, components), key, part, attribute[of]


def components(attribute: Json) -> Table:
    """The variance by source: shares, standard deviations, and the unbiased estimates before truncation at 0."""
    rows = []
    for of, source, key, part, whole in _parts(attribute):
        sd = part | {end: None if part[end] is None else part[end] ** 0.5 for end in ("value", "ci_low", "ci_high")}
        p = p_value(whole.get(f"p_{key}"))
        rows.append((of, source, words.share(part), estimate(sd, 2), number(part["raw"], 2), p))
    return Table(("Of", "Source", "Share", "Standard deviation", "Raw variance", "p"), rows, "llrrrr")


def variances(attribute: Json) -> Table:
    """The same as variances, by both methods."""
    rows = [
        (of, source, estimate(part, 2), number(part["raw"]), number(part["reml"]), str(part["n"]))
        for of, source, _, part, _ in _parts(attribute)
    ]
    return Table(("Of", "Source", "Variance, at least 0", "Raw", "REML", "Degrees of freedom"), rows, "llrrrr")


def selected(golden: Json) -> tuple[int, Json | None]:
    """The init seed that the grid puts first, and the decision on it, if it was forwarded."""
    seed = golden["selection"]["init_seeds"][golden["selection"]["best"]["index"]]
    return seed, next((found for found in golden["decisions"] if found["golden_init_seed"] == seed), None)


def winner(golden: Json) -> Table:
    """The gain of the selected seed: from what was hoped to what held."""
    best, selection = golden["selection"]["best"], golden["selection"]
    seed, decision = selected(golden)
    rows = [
        ("On the grid it was selected on", signed(best["naive_gain"]), best["naive_gain_is"]),
        (
            "Best of the grid expected by luck alone",
            signed(selection["expected_best_by_luck"]),
            "if no seed were better",
        ),
        ("Shrunken estimate (BLUP)", signed(best["blup_gain"]), "the grid’s best guess, selection allowed for"),
    ]
    if decision:
        bounds = f"{100 * (1 - decision['bound_alpha']):g}% bounds"
        worth = "proves nothing" if decision["status"] == "INVALID" else "the claim"
        holm = f" ({words.p_is(decision['p_holm'])} by Holm)" if decision["forwarded"] > 1 else ""
        rows.append(
            (
                "Confirmation on fresh data seeds",
                signed(decision["difference"]["value"]),
                f"{bounds} {interval(decision['difference'])}, {words.p_is(decision['p_value'])}{holm}: {worth}",
            )
        )
    return Table((f"Gain of init seed {seed}", "Nats per token", ""), rows, "lrl")


def decisions(golden: Json) -> Table:
    """All that was put to the golden rule."""
    rows = [
        (
            words.who(found),
            words.found_by(found["name"]),
            found["status"].replace("_", " "),
            estimate(found["difference"]),
            f"{found['wins']} of {found['n_data_seeds']}",
            p_value(found["p_holm"]),
        )
        for found in golden["decisions"]
    ]
    return Table(("", "Found by", "Status", "Gain on fresh data seeds", "Wins", "p, Holm"), rows, "lllrrr")


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
            signed(entry["james_stein_gain"]),
        )
        for place, entry in enumerate(golden["selection"]["ranking"], 1)
    ]
    head = ("", "Init seed", "Mean validation loss", "Gain, selection-biased", "Gain, BLUP", "Gain, James–Stein")
    return Table(head, rows, "lrrrrr")


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


def equal_compute(ensembles: Json) -> Table:
    """Ensembles against single models that cost as much; compute is relative to that of an ensemble."""
    found = ensembles["equal_compute"]
    names = {"longer": f"{found['longer']['steps']:,} steps", "wider": f"width {found['wider']['width']}"}
    rows = [
        (
            name,
            times(single["training_compute"]),
            times(single["inference_compute"]),
            estimate(single["single_loss"], 4),
            estimate(single["ensemble_loss"], 4),
            str(single["diverged"]),
        )
        for design, name in names.items()
        for single in [found[design]]
    ]
    head = ("Single models", "Training compute", "Inference compute", "Their loss", "Loss of ensembles", "Diverged")
    return Table(head, rows, "lrrrrr")


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
    plan, look, crossed = compare["plan"], compare.get("sequential"), evidence.attribute["difference"]["crossed"]
    equal = [evidence.attribute[arm]["deterministic"] for arm in ARMS]
    deterministic = None if None in equal else all(equal)
    pairs = Check("Pairs of runs", str(compare["n_pairs"]), "at least 10", compare["n_pairs"] >= 10)
    if look:
        done = look["stop"] or look["n"] == look["planned"]
        pairs = Check(
            "Pairs of runs", f"{look['n']} of at most {look['planned']}", "until the test stops, or all", done
        )
    return [
        Check(
            "Plan of the comparison",
            "registered before its runs, and kept" if plan["status"] == "planned" else "none that holds",
            "registered and kept",
            plan["status"] == "planned",
        ),
        pairs,
        Check(
            "Seeds of the grid",
            f"{len(evidence.attribute['init_seeds'])} init, {len(evidence.attribute['data_seeds'])} data seeds",
            "all runs of at least 5 and 5",
            bool(crossed and crossed["reliable"]),
        ),
        Check(
            "Reruns of identical seeds",
            {True: "equal bit for bit", False: "not equal", None: "none"}[deterministic],
            "equal bit for bit",
            deterministic,
        ),
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
        ("Plan of the comparison, SHA-256", evidence.compare["plan"]["plan_sha256"] or "no plan"),
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
    seeds = ["init_seed", "data_seed", "noise_seed", "rep"]
    losses = ["val_loss", "test_loss", "last_batch_loss"]
    shown = evidence.runs.sort_values(["design", "arm", *seeds], kind="stable").head(LISTED_RUNS)
    if (evidence.runs["noise_seed"] == evidence.runs["data_seed"]).all():
        seeds.remove("noise_seed")
    if not evidence.runs["rep"].any():
        seeds.remove("rep")
    rows = [
        tuple(number(cell, 5) if isinstance(cell, float) else str(cell) for cell in row[:-1])
        + ("diverged" if row[-1] else "",)
        for row in shown[["run_id", "design", "arm", *seeds, *losses, "diverged"]].itertuples(index=False, name=None)
    ]
    heads = {"init_seed": "Init seed", "data_seed": "Data seed", "noise_seed": "Noise seed", "rep": "Rerun"}
    head = ("Run", "Design", "Arm", *(heads[seed] for seed in seeds), "Validation", "Test", "Last batch", "")
    return Table(head, rows, f"lll{'r' * (len(seeds) + len(losses))}l")
