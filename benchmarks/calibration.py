"""Do the statistics keep their promises? Simulated experiments whose truth is known, against declared thresholds.

    python -m benchmarks.calibration [--json PATH]

prints one line per simulation: what was obtained and the interval in which it must lie. Rows that say "must fail"
show a popular wrong method failing: without them, a simulation that finds no errors would prove nothing. Effects are
Gaussian but for the members of ensembles; seeds are fixed; every simulation calls the functions that the reports call.
"""

import argparse
import gc
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from infinito.questions import ensemble, golden
from infinito.questions.compare import Family, compare, family
from infinito.statistics import anova, correlation, paired, sequential
from infinito.statistics.paired import Array
from infinito.tasks import Metric

REPEATS = 2000
MANY = 20_000
ALPHA = 0.05
NATS = Metric("loss", "nats per token", "lower", guess=math.nan)
AVERAGED: ensemble.Averaged = "probabilities"
TYPE_1 = (0.035, 0.065)
COVERAGE = (0.93, 0.97)


@dataclass(frozen=True)
class Row:
    """One simulated figure and the closed interval in which it must lie."""

    id: str
    test: str
    low: float
    high: float
    got: float

    @property
    def passed(self) -> bool:
        return self.low <= self.got <= self.high


Check = Callable[[np.random.Generator], Iterator[Row]]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__.upper()] = function
    return function


def run(name: str) -> list[Row]:
    """The rows of one check; the same at every call."""
    return list(CHECKS[name](np.random.default_rng([20260, int(name[1:])])))


def share(hits: ArrayLike) -> float:
    return float(np.asarray(hits, float).mean())


def grids(
    rng: np.random.Generator, repeats: int, shape: tuple[int, int, int], variances: tuple[float, float, float, float]
) -> tuple[Array, Array]:
    """Grids [repeats, I, J, K] of mean 0 and their init effects; variances: init, data, interaction, residual."""
    i, j, k = shape
    sd_init, sd_data, sd_crossed, sd_residual = np.sqrt(variances)
    init = sd_init * rng.standard_normal((repeats, i))
    data = sd_data * rng.standard_normal((repeats, j))
    crossed = sd_crossed * rng.standard_normal((repeats, i, j))
    residual = sd_residual * rng.standard_normal((repeats, i, j, k))
    return init[:, :, None, None] + data[:, None, :, None] + crossed[..., None] + residual, init


def covers(low: Array, high: Array, truth: float) -> float:
    return share((low <= truth) & (truth <= high))


@check
def c1(rng: np.random.Generator) -> Iterator[Row]:
    for n in (10, 20):
        p = paired.paired_t(rng.standard_normal((REPEATS, n))).p
        yield Row("C1", f"paired t, no effect, n={n}: rejects", *TYPE_1, share(p < ALPHA))


@check
def c2(rng: np.random.Generator) -> Iterator[Row]:
    for n in (5, 10, 20, 30):
        allowed = (0.0, 0.0) if n == 5 else TYPE_1
        d = rng.standard_normal((REPEATS, n))
        flips = np.concatenate([paired.sign_flip(part, rng=rng) for part in np.split(d, 20)])
        yield Row("C2", f"sign flip, no effect, n={n}: rejects", *allowed, share(flips < ALPHA))
        ranks = np.array([paired.wilcoxon(x)[2] for x in d])
        yield Row("C2", f"Wilcoxon, no effect, n={n}: rejects", *allowed, share(ranks < ALPHA))


@check
def c3(rng: np.random.Generator) -> Iterator[Row]:
    for size, truth in itertools.product((5, 8, 10), ((1, 0, 1, 0), (0, 1, 1, 0), (1, 1, 1, 0))):
        y, _ = grids(rng, MANY, (size, size, 1), truth)
        p = anova.crossed_test(anova.mean_squares(y)).p
        name = f"crossed test, no effect, {size}x{size}, variances {truth[:3]}: rejects"
        yield Row("C3", name, 0.035 if size == 10 else 0.025, 0.065, share(p < ALPHA))


@check
def c4(rng: np.random.Generator) -> Iterator[Row]:
    for size in (5, 8, 10):
        y, _ = grids(rng, MANY, (size, size, 1), (0, 0, 1, 0))
        p = anova.crossed_test(anova.mean_squares(y)).p
        yield Row("C4", f"crossed test, no effect, {size}x{size}, noise only: rejects", 0.0, 0.065, share(p < ALPHA))


@check
def c5(rng: np.random.Generator) -> Iterator[Row]:
    y, _ = grids(rng, REPEATS, (10, 10, 1), (1, 1, 1, 0))
    p = paired.paired_t(y.reshape(REPEATS, -1)).p
    yield Row("C5", "must fail: t-test over the cells of a 10x10 grid: rejects", 0.30, 1.0, share(p < ALPHA))


@check
def c6(rng: np.random.Generator) -> Iterator[Row]:
    for n in (10, 20, 30):
        test = paired.paired_t(rng.standard_normal((REPEATS, n)))
        yield Row("C6", f"t interval, n={n}: covers", *COVERAGE, covers(test.ci_low, test.ci_high, 0))
    limits = [paired.bootstrap(x, rng=rng) for x in rng.standard_normal((REPEATS, 30))]
    inside = [limit["ci_low"] <= 0 <= limit["ci_high"] for limit in limits]
    yield Row("C6", "BCa interval, n=30: covers", 0.92, 0.97, share(inside))


@check
def c7(rng: np.random.Generator) -> Iterator[Row]:
    for name, truth, high in (("init and data", (1, 1, 1, 0), 0.97), ("noise only", (0, 0, 1, 0), 1.0)):
        y, _ = grids(rng, MANY, (10, 10, 1), truth)
        test = anova.crossed_test(anova.mean_squares(y))
        yield Row("C7", f"crossed interval, 10x10, {name}: covers", 0.93, high, covers(test.ci_low, test.ci_high, 0))


def confirmations(
    rng: np.random.Generator,
    variances: tuple[float, float, float, float],
    golden_effect: Array,
    n: int,
    controls: int = 3,
    shared_controls: bool = False,
) -> Iterator[str]:
    """Status of one confirmation per golden seed, whose init effects (a loss) are given."""
    sd_init, sd_data, sd_crossed, sd_residual = np.sqrt(variances)
    noise = math.hypot(sd_crossed, sd_residual)
    for effect in golden_effect:
        data = sd_data * rng.standard_normal((n, 1))
        control_effect = sd_init * rng.standard_normal((1 if shared_controls else n, controls))
        control = data + control_effect + noise * rng.standard_normal((n, controls))
        candidate = golden.Candidate("selected", 0, data[:, 0] + effect + noise * rng.standard_normal(n))
        (decision,) = golden.confirm(
            [candidate],
            control,
            metric=NATS,
            data_seeds=range(100, 100 + n),
            control_inits=[range(1000 + j * controls, 1000 + (j + 1) * controls) for j in range(n)],
            selection_inits=range(10),
            selection_data_seeds=range(5),
            registered=True,
            margin_useful=0.0,  # none is refuted for being useless: how often the test itself confirms
        )
        yield decision["status"]


def selected(
    rng: np.random.Generator, variances: tuple[float, float, float, float], repeats: int = REPEATS
) -> tuple[Array, Array, Array]:
    """Selection grids [repeats, 10, 5, 1], the best row of each, and that row's true init effect."""
    y, init = grids(rng, repeats, (10, 5, 1), variances)
    best = golden.naive_gain(y).argmax(-1)
    return y, best, init[np.arange(repeats), best]


def confirmed(statuses: Iterator[str]) -> float:
    return share([status == "GOLDEN_CONFIRMED" for status in statuses])


@check
def c8(rng: np.random.Generator) -> Iterator[Row]:
    for truth in ((0, 1, 0, 1), (0, 1, 1, 1), (0, 1, 1, 0.05)):
        y, best, effect = selected(rng, truth)
        rate = confirmed(confirmations(rng, truth, effect, 10))
        yield Row("C8", f"golden rule, no lasting init effect, variances {truth}: confirms", 0.0, 0.05, rate)
        loss = y[..., 0]
        own = loss[np.arange(REPEATS), best]
        test = paired.paired_t((loss.sum(1) - own) / 9 - own)
        naive = share(stats.t.sf(test.t, test.df) < ALPHA)
        yield Row("C8", f"must fail: t-test on the selection data, variances {truth}: rejects", 0.20, 1.0, naive)


@check
def c9(rng: np.random.Generator) -> Iterator[Row]:
    truth, average = (1.0, 1.0, 0.5, 0.5), np.zeros(REPEATS)
    fresh = confirmed(confirmations(rng, truth, average, 10))
    yield Row("C9", "golden rule, exactly average seed: confirms", 0.0, 0.04, fresh)
    shared = confirmed(confirmations(rng, truth, average, 10, shared_controls=True))
    yield Row("C9", "must fail: controls shared by all data seeds: confirms", 0.08, 1.0, shared)


@check
def c10(rng: np.random.Generator) -> Iterator[Row]:
    truth = (0.5, 1.0, 0.5, 0.5)
    rate = confirmed(confirmations(rng, truth, selected(rng, truth)[2], 20))
    yield Row("C10", "golden rule, init variance 0.5, 20 data seeds, 3 controls: confirms", 0.65, 1.0, rate)


@check
def c11(rng: np.random.Generator) -> Iterator[Row]:
    for variance, bound in ((0, 0.45), (0.1, 0.60), (0.25, 0.75), (0.5, 0.85)):
        y, init = grids(rng, REPEATS, (10, 5, 1), (variance, 1, 1, 0))
        naive, blup = golden.naive_gain(y), golden.blup_gain(y)
        best = np.arange(REPEATS), naive.argmax(-1)
        truth = (init.mean(-1, keepdims=True) - init)[best]
        ratio = np.sqrt(((blup[best] - truth) ** 2).mean() / ((naive[best] - truth) ** 2).mean())
        yield Row("C11", f"RMSE of BLUP / naive gain of the best, init variance {variance}", 0.0, bound, float(ratio))


@check
def c12(rng: np.random.Generator) -> Iterator[Row]:
    truth = {"init": 1.0, "data": 1.0, "interaction": 0.5, "residual": 0.5}
    for size in (8, 10):
        y, _ = grids(rng, REPEATS, (size, size, 2), (1.0, 1.0, 0.5, 0.5))
        for name, value in anova.components(anova.mean_squares(y)).items():
            error = float(value.mean()) / truth[name] - 1
            yield Row("C12", f"mean variance component {name}, {size}x{size}x2: relative error", -0.05, 0.05, error)


@check
def c13(rng: np.random.Generator) -> Iterator[Row]:
    for shape in ((5, 5, 2), (6, 6, 3), (10, 10, 2), (20, 20, 2)):
        for variances in ((1.0, 1.0, 0.5, 0.5), (0.1, 1.0, 0.5, 1.0)):
            truth = dict(zip(("init", "data", "interaction", "residual"), variances, strict=True))
            y, _ = grids(rng, REPEATS, shape, variances)
            limits = anova.intervals(anova.mean_squares(y))
            for name in ("init", "interaction", "residual"):
                got = covers(*limits[name], truth[name])
                yield Row("C13", f"interval of {name}, {shape}, true {truth[name]}: covers", *COVERAGE, got)


@check
def c14(rng: np.random.Generator) -> Iterator[Row]:
    for n, eps in itertools.product((10, 20), (0.8, 1.0)):
        p = paired.tost(rng.standard_normal((REPEATS, n)) + eps, eps).p
        yield Row("C14", f"TOST at its boundary {eps} SD, n={n}: rejects", *TYPE_1, share(p < ALPHA))


@check
def c15(rng: np.random.Generator) -> Iterator[Row]:
    d = rng.standard_normal((REPEATS, 50))
    for g in (1.0, 0.25):
        largest = np.max([sequential.log_e_value(d[:, :n], g) for n in range(5, 51)], axis=0)
        name = f"e-value (g={g:g}) after every pair 5..50, no effect: ever rejects"
        yield Row("C15", name, 0.0, 0.05, share(largest >= -math.log(ALPHA)))
    for looks in ((8, 16, 24, 32), (10, 20, 30), (10, 20)):
        d = rng.standard_normal((REPEATS, looks[-1]))
        levels = zip(looks, sequential.obrien_fleming(looks), strict=True)
        ever = np.any([paired.paired_t(d[:, :n]).p < level for n, level in levels], axis=0)
        yield Row("C15", f"O'Brien-Fleming looks {looks}, no effect: ever rejects", *TYPE_1, share(ever))


@check
def c16(rng: np.random.Generator) -> Iterator[Row]:
    d = rng.standard_normal((REPEATS, 50))
    ever = np.any([paired.paired_t(d[:, :n]).p < ALPHA for n in range(5, 51)], axis=0)
    yield Row("C16", "must fail: t-test after every pair 5..50, no effect: ever rejects", 0.15, 1.0, share(ever))


@check
def c17(rng: np.random.Generator) -> Iterator[Row]:
    repeats, candidates, n = 1000, 5, 20
    losses = rng.standard_normal((repeats, candidates + 1, n))
    d = losses[:, :1] - losses[:, 1:]
    p = paired.paired_t(d).p
    name = f"{candidates} candidates against one baseline, no effect: any rejected"
    gc.freeze()  # statsmodels collects garbage in every call, which takes as long as much is alive
    holm = [row.min() < ALPHA and min(paired.adjust(list(row))) < ALPHA for row in p]  # Holm lowers no p-value
    gc.unfreeze()
    yield Row("C17", f"Holm, {name}", 0.0, 0.065, share(holm))
    yield Row("C17", f"max-t, {name}", 0.0, 0.065, share([paired.max_t(x, rng=rng).min() < ALPHA for x in d]))
    yield Row("C17", f"must fail: unadjusted, {name}", 0.12, 1.0, share(p.min(1) < ALPHA))


@check
def c18(rng: np.random.Generator) -> Iterator[Row]:
    for rho in (0.0, 0.5, 0.8):
        pearson = 2 * math.sin(math.pi * rho / 6)  # of the normal distribution with this rank correlation
        x, noise = rng.standard_normal((2, REPEATS, 20))
        result = correlation.spearman(x, pearson * x + math.sqrt(1 - pearson**2) * noise)
        got = covers(result.ci_low, result.ci_high, rho)
        yield Row("C18", f"Spearman interval, n=20, true {rho}: covers", 0.93, 0.98, got)


@check
def c19(rng: np.random.Generator) -> Iterator[Row]:
    y, _ = grids(rng, REPEATS, (10, 10, 1), (1, 1, 1, 0))
    proxy = rng.standard_normal((REPEATS, 10))
    rows = correlation.spearman(proxy, y.mean((2, 3))).p
    yield Row("C19", "proxy of the init seed, no skill, 10 rows: rejects", *TYPE_1, share(rows < ALPHA))
    cells = correlation.spearman(np.repeat(proxy, 10, axis=1), y.reshape(REPEATS, -1)).p
    yield Row("C19", "must fail: the same proxy against all 100 cells: rejects", 0.20, 1.0, share(cells < ALPHA))


def members(rng: np.random.Generator, shape: tuple[int, ...], tokens: int = 20) -> Array:
    """Target log-probabilities [*shape, tokens] of members of skewed quality on tokens of rising difficulty."""
    quality = rng.gamma(2, 0.5, size=(*shape, 1))
    logit = np.linspace(2, -2, tokens) - quality + rng.standard_normal((*shape, tokens))
    return -np.log1p(np.exp(-logit))


@check
def c20(rng: np.random.Generator) -> Iterator[Row]:
    truth = {
        size: float(ensemble.ensemble_loss(members(rng, (MANY, size)), averaged=AVERAGED).mean()) for size in (2, 3)
    }

    def inside(x: paired.Estimate, size: int) -> bool:
        assert x["ci_low"] is not None and x["ci_high"] is not None
        return x["ci_low"] <= truth[size] <= x["ci_high"]

    for groups in (5, 10):
        curves = [
            ensemble.ensemble_curve(x, np.zeros(len(x)), [3], averaged=AVERAGED)
            for x in members(rng, (REPEATS, 3 * groups))
        ]
        got = share([inside(curve["curve"][0]["loss"], 3) for curve in curves])
        yield Row("C20", f"ensembles of 3, {groups} disjoint groups: covers", 0.92, 0.97, got)
    hits, naive = [], []
    pairs = np.array(list(itertools.combinations(range(12), 2)))
    for x in members(rng, (REPEATS, 12)):
        hits.append(inside(ensemble.all_subsets_loss(x, 2, averaged=AVERAGED), 2))
        naive.append(inside(paired.mean_estimate(ensemble.ensemble_loss(x[pairs], averaged=AVERAGED).mean(-1)), 2))
    yield Row("C20", "ensembles of 2, all subsets of 12, jackknife: covers", 0.88, 0.97, share(hits))
    yield Row("C20", "must fail: t interval over overlapping subsets of 12: covers", 0.0, 0.70, share(naive))


@check
def c21(rng: np.random.Generator) -> Iterator[Row]:
    def better(pairs: int, effect: float) -> float:
        baseline, noise = rng.standard_normal((2, 500, pairs))
        losses = zip(baseline - effect + noise, baseline, strict=True)
        return share(
            [compare(mine, other, smallest_effect=0.01, metric=NATS)["verdict"] == "BETTER" for mine, other in losses]
        )

    yield Row("C21", "compare, equal arms, n=10: BETTER", 0.01, 0.06, better(10, 0.0))
    pairs = math.ceil(paired.pairs_needed(0.8))
    yield Row("C21", f"compare, {pairs} pairs planned for 80 % power: BETTER", 0.75, 0.87, better(pairs, 0.8))


@check
def c22(rng: np.random.Generator) -> Iterator[Row]:
    repeats, n = 1500, 10
    losses = rng.standard_normal((repeats, 4, n))
    d = losses[:, :1] - losses[:, 1:]
    p = paired.paired_t(d).p
    wrong = np.zeros(repeats, bool)
    gc.freeze()  # as in C17
    for i in np.flatnonzero(p.min(1) < ALPHA):  # Holm lowers no p-value
        rows = family({name: {"test_loss": x} for name, x in zip("abc", d[i], strict=True)}, smallest_effect=0.01)
        for arm in np.flatnonzero(p[i] < ALPHA):
            place = Family(len(rows), rows[arm]["p_holm"], rows[arm]["p_equivalence_holm"])
            result = compare(losses[i, arm + 1], losses[i, 0], smallest_effect=0.01, family=place, metric=NATS)
            wrong[i] |= result["verdict"] in ("BETTER", "WORSE")
    gc.unfreeze()
    name = f"3 arms against one baseline, no effect, n={n}: any BETTER or WORSE"
    yield Row("C22", f"compare in a family of {name}", 0.0, 0.065, share(wrong))
    yield Row("C22", f"must fail: unadjusted, {name}", 0.09, 1.0, share(p.min(1) < ALPHA))


def stopped(d: Array, design: sequential.Design) -> Array:
    """Lower limit, upper limit and whether it was stopped [3, repeats] of the experiments d [repeats, pairs]."""
    looks = [sequential.stopped(x, design=design, pairs=d.shape[-1], alpha=ALPHA) for x in d]
    return np.array([(look.ci_low, look.ci_high, look.stop) for look in looks], float).T


@check
def c23(rng: np.random.Generator) -> Iterator[Row]:
    ever = stopped(rng.standard_normal((REPEATS, 32)), (8, 16, 24, 32))[2]
    yield Row("C23", "stopped at looks (8, 16, 24, 32), no effect: ever rejects", *TYPE_1, share(ever))
    ever = stopped(rng.standard_normal((400, 50)), "anytime")[2]
    yield Row("C23", "stopped anytime in 5..50, no effect: ever rejects", 0.0, 0.05, share(ever))


@check
def c24(rng: np.random.Generator) -> Iterator[Row]:
    effect = 0.5
    low, high, _ = stopped(effect + rng.standard_normal((1000, 32)), (8, 16, 24, 32))
    name = "interval where it stopped"
    yield Row("C24", f"{name}, looks (8, 16, 24, 32), effect 0.5: covers", 0.93, 1.0, covers(low, high, effect))
    low, high, _ = stopped(effect + rng.standard_normal((500, 50)), "anytime")
    yield Row("C24", f"{name}, anytime in 5..50, effect 0.5: covers", 0.93, 1.0, covers(low, high, effect))


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the calibration of every statistic against its threshold.")
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    arguments = parser.parse_args()
    rows = []
    for name in CHECKS:
        start = time.perf_counter()
        for row in run(name):
            rows.append(row)
            outcome = "ok" if row.passed else "FAIL"
            print(f"{row.id:4} {row.got:8.4f} in [{row.low:.3f}, {row.high:.3f}] {outcome:4} {row.test}")
        print(f"     {time.perf_counter() - start:6.1f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) | {"passed": row.passed} for row in rows], indent=1) + "\n")
    raise SystemExit(not all(row.passed for row in rows))


if __name__ == "__main__":
    main()
