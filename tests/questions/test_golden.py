"""Golden seeds: known answers, the confirmation rule, and every way to break it."""

import hashlib
import json
import math

import numpy as np
import pytest
from scipy import stats

from infinito.questions import golden as g
from infinito.statistics.anova import mean_squares
from infinito.statistics.paired import adjust, expected_maximum
from infinito.storage import canonical
from tests.comparisons import NATS, SHARE

SEEDS = {
    "golden_init": 7,
    "metric": NATS,
    "data_seeds": list(range(100, 112)),
    "control_inits": np.arange(1000, 1036).reshape(12, 3).tolist(),
    "selection_inits": list(range(10)),
    "selection_data_seeds": list(range(5)),
    "registered": True,
    "margin_useful": 0.05,
}


DESIGN = {name: value for name, value in SEEDS.items() if name != "golden_init"}


def confirm(golden: np.ndarray, control: np.ndarray, *, golden_init: int, **design) -> dict:
    """The decision on a single candidate."""
    return g.confirm([g.Candidate("selected", golden_init, golden)], control, **design)[0]


def losses(gain: float, sd: float = 0.1, n: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Losses of a golden seed and its controls whose mean difference is exactly `gain`."""
    rng = np.random.default_rng(seed)
    data = rng.standard_normal((n, 1))
    control = 3 + data + sd * rng.standard_normal((n, 3))
    golden = 3 + data[:, 0] + sd * rng.standard_normal(n)
    return golden + (control.mean(1) - golden).mean() - gain, control


def test_expected_best_by_hand():
    # of the 3 pairs of {1, 2, 4} the best are 2, 4, 4; of the 9 ordered draws one is 1, three are 2, five are 4
    assert g.expected_best([4, 1, 2], 2, replacement=False) == pytest.approx(10 / 3)
    assert g.expected_best([4, 1, 2], 2) == pytest.approx((1 + 3 * 2 + 5 * 4) / 9)
    assert g.expected_best([4, 1, 2], 1) == pytest.approx(7 / 3)
    assert g.expected_best([4, 1, 2], 3, replacement=False) == pytest.approx(4)


def test_expected_best_curve_stops_at_half_and_rises():
    curve = g.expected_best_curve(np.random.default_rng(0).standard_normal(11))
    assert len(curve) == 5 and curve == sorted(curve)


@pytest.mark.parametrize("n", [0, 4])
def test_expected_best_needs_a_possible_sample(n):
    with pytest.raises(ValueError, match=f"found n = {n}"):
        g.expected_best([1, 2, 3], n)


def test_select_ranks_by_mean_loss_and_shrinks_the_gain():
    y = np.array([[3.0, 3.2, 3.1], [2.0, 2.3, 2.1], [2.9, 3.0, 3.3], [3.5, 3.4, 3.6], [2.8, 2.6, 2.9]])
    result = g.select(y)
    assert [seed["index"] for seed in result["ranking"]] == [1, 4, 2, 0, 3]
    best = result["best"]
    assert best["index"] == 1 and best["naive_gain_is"] == "selection-biased"
    assert best["naive_gain"] == pytest.approx(y.mean() - y[1].mean())
    ms = mean_squares(y[..., None])
    noise = float(ms.interaction / ms.init)
    assert best["blup_gain"] == pytest.approx((1 - noise) * best["naive_gain"])
    assert best["james_stein_gain"] == pytest.approx((1 - noise / 2) * best["naive_gain"])
    assert result["expected_best_by_luck"] == pytest.approx(1.162964 * math.sqrt(float(ms.interaction) / 3), rel=1e-6)
    assert best["naive_gain"] > result["expected_best_by_luck"] and result["p_init"] < 0.01
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_the_best_of_equal_seeds_looks_as_good_as_luck_predicts():
    best, luck, shrunken = [], [], []
    for y in np.random.default_rng(1).standard_normal((300, 10, 5)):
        result = g.select(y)
        best.append(result["best"]["naive_gain"])
        luck.append(result["expected_best_by_luck"])
        shrunken.append(result["best"]["blup_gain"])
    assert np.mean(best) == pytest.approx(np.mean(luck), rel=0.08)
    assert np.mean(best) == pytest.approx(0.69, abs=0.04)
    assert np.mean(shrunken) < np.mean(best) / 4


def test_the_best_cell_of_equal_cells_is_as_good_as_luck_predicts():
    gain, luck = [], []
    for y in np.random.default_rng(2).standard_normal((300, 5, 5)):
        cell = g.select(y)["best_cell"]
        assert y[tuple(cell["index"])] == y.min() and cell["gain"] == pytest.approx(y.mean() - y.min())
        assert cell["expected_best_by_luck"] == pytest.approx(expected_maximum(25) * y.std(ddof=1))
        gain.append(cell["gain"])
        luck.append(cell["expected_best_by_luck"])
    assert np.mean(gain) == pytest.approx(np.mean(luck), rel=0.03)


def test_equal_reruns_change_no_selection():
    y = np.random.default_rng(3).standard_normal((6, 5))
    once, again = g.select(y), g.select(np.broadcast_to(y[..., None, None], (6, 5, 2, 3)))
    assert [seed["index"] for seed in again["ranking"]] == [seed["index"] for seed in once["ranking"]]
    for name in ("expected_best_by_luck", "p_init"):
        assert again[name] == pytest.approx(once[name])
    assert again["best"] == pytest.approx(once["best"])
    assert again["best_cell"]["index"] == once["best_cell"]["index"]


def test_the_conditional_estimate_solves_its_equation():
    y = np.random.default_rng(4).standard_normal((8, 5, 1)) + np.linspace(0, 9, 8)[:, None, None]
    second, first = np.sort(g.naive_gain(y))[-2:]
    gain, se = g.conditional_gain(y), math.sqrt(mean_squares(y).interaction / 5)
    z = (gain - second) / se
    assert 0 < gain < first
    assert (first - gain) / se == pytest.approx(stats.norm.pdf(z) / stats.norm.cdf(z))
    assert g.select(y)["best"]["conditional_mle_gain"] == gain
    assert g.conditional_gain(np.zeros((4, 3, 1))) == 0


@pytest.mark.parametrize(("variance", "bias", "rmse"), [(0, 0.22, 0.41), (0.1, 0.08, 0.46), (2, -0.18, 0.74)])
def test_the_conditional_estimate_is_as_biased_as_it_is_said_to_be(variance, bias, rmse):
    rng, error = np.random.default_rng(5), []
    for _ in range(500):
        init = math.sqrt(variance) * rng.standard_normal(10)
        y = init[:, None, None] + rng.standard_normal((10, 5, 1))
        error.append(g.conditional_gain(y) - (init.mean() - init[g.naive_gain(y).argmax()]))
    assert np.mean(error) == pytest.approx(bias, abs=0.1)
    assert np.sqrt(np.mean(np.square(error))) == pytest.approx(rmse, abs=0.07)


def test_select_of_a_constant_grid():
    result = g.select(np.ones((4, 3)))
    assert result["best"]["naive_gain"] == 0 and result["best"]["james_stein_gain"] == 0
    assert result["F_init"] is None and result["p_init"] is None
    assert result["note"] == "all runs of these init seeds are equal: the init seed decides nothing here"
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_an_init_seed_that_decides_nothing_is_not_selected_for_anything():
    y = np.tile(np.random.default_rng(0).standard_normal(5), (4, 1))
    result = g.select(y)
    assert [row["naive_gain"] for row in result["ranking"]] == [0] * 4 and result["expected_best_by_luck"] == 0
    assert result["F_init"] is None and result["p_init"] is None and "decides nothing here" in result["note"]
    assert g.select(y.T)["p_init"] is None and g.select(y.T)["note"] is None  # they differ, by what is no luck
    assert g.select(y + np.random.default_rng(1).standard_normal((4, 5)))["note"] is None


@pytest.mark.parametrize(
    ("gain", "changes", "status"),
    [
        (0.5, {}, "GOLDEN_CONFIRMED"),
        (0.5, {"registered": False}, "NOT_CONFIRMED"),
        (0.5, {"margin": 0.45}, "NOT_CONFIRMED"),
        (0.0, {}, "NOT_CONFIRMED"),
        (0.0, {"margin_useful": 0.5}, "GOLDEN_REFUTED"),
        (-0.5, {}, "GOLDEN_REFUTED"),
        (-0.5, {"registered": False}, "GOLDEN_REFUTED"),
    ],
)
def test_the_rule(gain, changes, status):
    result = confirm(*losses(gain), **(SEEDS | changes))
    assert result["status"] == status
    assert result["difference"]["value"] == pytest.approx(gain)
    assert result["reason"] is None
    assert "init seed 7" in result["sentence"].lower() and "\n" not in result["sentence"]
    assert ("not registered" in result["sentence"]) == (status == "NOT_CONFIRMED" and not result["registered"])
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_the_level_is_one_sided():
    golden, control = losses(0.07, sd=0.2, seed=3)
    result = confirm(golden, control, **SEEDS)
    d = control.mean(1) - golden
    t = d.mean() / (d.std(ddof=1) / math.sqrt(12))
    assert result["p_value"] == pytest.approx(stats.t.sf(t, 11))
    assert result["difference"]["ci_low"] == pytest.approx(d.mean() - stats.t.isf(0.025, 11) * d.mean() / t)
    assert (result["difference"]["ci_low"] > 0) == (result["p_value"] < 0.025)
    assert confirm(-golden, -control, **SEEDS)["p_value"] == pytest.approx(1 - result["p_value"])


def test_a_gain_that_is_sure_but_useless_is_refuted():
    result = confirm(*losses(0.2, sd=0.05), **(SEEDS | {"margin_useful": 0.5}))
    assert result["p_holm"] < 1e-4 and result["difference"]["ci_low"] > 0 and result["difference"]["ci_high"] < 0.5
    assert result["status"] == "GOLDEN_REFUTED"
    assert (
        "is not golden, for though it is better than other init seeds, its gain is shown to be below the useful 0.5 "
        in (result["sentence"])
    )
    plain = confirm(*losses(0.0), **(SEEDS | {"margin_useful": 0.5}))
    assert "is not golden, its gain is shown to be below the useful 0.5 " in plain["sentence"]


@pytest.mark.parametrize("seed", range(8))
def test_confirmed_is_above_the_margin_and_not_shown_to_be_useless(seed):
    """The same rule for every gain, in terms of the bounds."""
    for gain in np.linspace(-0.1, 0.3, 9):
        result = confirm(*losses(gain, sd=0.15, seed=seed), **(SEEDS | {"margin": 0.02, "margin_useful": 0.12}))
        low, high = result["difference"]["ci_low"], result["difference"]["ci_high"]
        expected = "GOLDEN_REFUTED" if high < 0.12 else "GOLDEN_CONFIRMED" if low > 0.02 else "NOT_CONFIRMED"
        assert result["status"] == expected, (low, high)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data_seeds": [100, *range(100, 111)]}, "a data seed occurs twice"),
        ({"selection_data_seeds": [4, 105]}, "data seed 105 was used in the selection"),
        ({"control_inits": [[1000, 1001, 1002]] * 12}, "a control init seed occurs twice"),
        ({"selection_inits": [7, 1010]}, "control init seed 1010 was used in the selection"),
        ({"golden_init": 1020}, "control init seed 1020 was used in the selection"),
    ],
)
def test_reused_seeds_make_a_confirmation_invalid(changes, reason):
    result = confirm(*losses(0.5), **(SEEDS | changes))
    assert result["status"] == "INVALID" and reason in result["reason"] and reason in result["sentence"]


@pytest.mark.parametrize("n", [1, 2, 9])
def test_fewer_than_10_data_seeds_make_a_confirmation_invalid(n):
    golden, control = losses(0.5)
    few = {"data_seeds": SEEDS["data_seeds"][:n], "control_inits": SEEDS["control_inits"][:n]}
    result = confirm(golden[:n], control[:n], **(SEEDS | few))
    assert result["status"] == "INVALID" and f"found {n} data seeds" in result["reason"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(
    ("golden", "control", "message"),
    [
        (np.ones(12), np.ones((11, 3)), "shapes"),
        (np.ones(12), np.ones(12), "shapes"),
        (np.ones(0), np.ones((0, 3)), "shapes"),
        (np.ones(12), np.ones((12, 2)), "one seed per run"),
        (np.ones(11), np.ones((11, 3)), "one seed per run"),
        (np.full(12, math.nan), np.ones((12, 3)), "not finite"),
    ],
)
def test_bad_input_is_one_clear_line(golden, control, message):
    with pytest.raises(ValueError, match=message) as error:
        confirm(golden, control, **SEEDS)
    assert "\n" not in str(error.value)


def test_a_single_candidate_pays_for_no_other():
    for gain in (-0.1, 0.0, 0.03, 0.1):
        golden, control = losses(gain)
        alone = confirm(golden, control, **SEEDS)
        p = stats.ttest_1samp(control.mean(1) - golden, 0, alternative="greater").pvalue
        assert alone["p_holm"] == alone["p_value"] == pytest.approx(p) and alone["bound_alpha"] == alone["alpha"]


def test_with_one_candidate_the_decision_is_that_of_the_lower_bound():
    for seed in range(40):
        golden, control = losses(0.06, sd=0.1, seed=seed)
        result = confirm(golden, control, **(SEEDS | {"margin": 0.01}))
        assert (result["status"] == "GOLDEN_CONFIRMED") == (result["difference"]["ci_low"] > 0.01)


def three() -> tuple[list[g.Candidate], np.ndarray]:
    """Candidates with one-sided p about .0001, .01 and .5; the second is confirmed by Holm and not by Bonferroni."""
    rng = np.random.default_rng(6)
    control = 3 + 0.1 * rng.standard_normal((12, 3))
    noise = rng.standard_normal((3, 12))
    noise = 0.1 * (noise - noise.mean(1, keepdims=True)) / noise.std(1, ddof=1, keepdims=True)
    t = stats.t.isf([1e-4, 0.01, 0.5], 11)
    d = t[:, None] * 0.1 / math.sqrt(12) + noise
    names = (("selected", 7), ("best of ten", 55), ("checkpoint", None))
    return [g.Candidate(*name, control.mean(1) - x) for name, x in zip(names, d, strict=True)], control


def test_several_candidates_share_the_level_by_holm():
    candidates, control = three()
    results = g.confirm(candidates, control, **DESIGN)
    p = [result["p_value"] for result in results]
    assert p == pytest.approx([1e-4, 0.01, 0.5])
    assert [result["p_holm"] for result in results] == pytest.approx(adjust(p, "holm"))
    assert [result["status"] for result in results] == ["GOLDEN_CONFIRMED", "GOLDEN_CONFIRMED", "NOT_CONFIRMED"]
    for result in results:
        assert result["forwarded"] == 3 and result["bound_alpha"] == pytest.approx(0.025 / 3)
        reach = stats.t.isf(0.025 / 3, 11) * 0.1 / math.sqrt(12)
        assert result["difference"]["ci_high"] - result["difference"]["value"] == pytest.approx(reach)
        assert "99.17% bounds" in result["sentence"] and "by Holm for 3 candidates" in result["sentence"]
        assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_every_candidate_is_called_by_its_name():
    candidates, control = three()
    results = g.confirm(candidates, control, **DESIGN)
    starts = ["Init seed 7 (selected) is golden", "Init seed 55 (best of ten) is golden"]
    starts += ['The initialisation "checkpoint" is not confirmed']
    assert all(result["sentence"].startswith(start) for result, start in zip(results, starts, strict=True))
    assert [result["golden_init_seed"] for result in results] == [7, 55, None]
    assert [result["name"] for result in results] == ["selected", "best of ten", "checkpoint"]


def test_no_forwarded_seed_may_be_a_control():
    candidates, control = three()
    candidates[1] = candidates[1]._replace(golden_init=1004)
    results = g.confirm(candidates, control, **DESIGN)
    assert {result["status"] for result in results} == {"INVALID"}
    assert "control init seed 1004 was used" in results[2]["reason"]


@pytest.mark.parametrize("changes", [{"golden_init": 7}, {"name": "selected"}])
def test_a_candidate_is_forwarded_once(changes):
    candidates, control = three()
    candidates[1] = candidates[1]._replace(**changes)
    with pytest.raises(ValueError, match="none twice"):
        g.confirm(candidates, control, **DESIGN)
    with pytest.raises(ValueError, match="at least one"):
        g.confirm([], control, **DESIGN)


def test_a_candidate_needs_all_its_losses():
    candidates, control = three()
    candidates[1] = candidates[1]._replace(loss=np.ones(11))
    with pytest.raises(ValueError, match=r"shapes \(11,\), \(12,\), \(12, 3\)"):
        g.confirm(candidates, control, **DESIGN)


def test_useless_candidates_are_rarely_confirmed_however_many_there_are(monkeypatch):
    monkeypatch.setattr("gc.collect", lambda: 0)  # statsmodels collects garbage at every call, which takes minutes
    rng, wrong, never_useless = np.random.default_rng(7), 0, {"alpha": 0.1, "margin_useful": 0.0}
    for _ in range(600):
        data = rng.standard_normal((12, 1))
        control = data + rng.standard_normal((12, 3))
        candidates = [g.Candidate(str(k), k, data[:, 0] + rng.standard_normal(12)) for k in range(4)]
        results = g.confirm(candidates, control, **(DESIGN | never_useless))
        wrong += any(result["status"] == "GOLDEN_CONFIRMED" for result in results)
    assert 0.03 < wrong / 600 < 0.13


def test_the_loss_of_a_checkpoint_by_hand():
    # what the documents have more than 1.5 nats per token: -0.5, 0.5, 0; their SD is 0.5, and there are 4 tokens
    loss = g.checkpoint_loss([1.0, 5.0, 0.0], [1, 3, 0])
    assert loss["value"] == 1.5 and loss["n"] == 3
    assert loss["ci_high"] - 1.5 == pytest.approx(4.30265273 * math.sqrt(3) * 0.5 / 4)
    assert g.checkpoint_loss([3.0], [2]) == {"value": 1.5, "ci_low": None, "ci_high": None, "n": 1}


def test_the_interval_of_a_checkpoint_covers_the_loss_of_all_documents():
    rng, hits = np.random.default_rng(8), 0
    for _ in range(1000):
        tokens = rng.integers(20, 400, 60)
        nats = tokens * (3 + rng.standard_normal(60) * 0.5)
        loss = g.checkpoint_loss(nats, tokens)
        hits += loss["ci_low"] <= 3 <= loss["ci_high"]
    assert 0.925 < hits / 1000 < 0.97


@pytest.mark.parametrize(
    ("nats", "tokens"), [([1.0, 2.0], [1]), ([], []), ([1.0], [0]), ([math.nan, 1.0], [1, 1]), ([[1.0]], [[1]])]
)
def test_a_checkpoint_needs_the_nats_of_every_document(nats, tokens):
    with pytest.raises(ValueError, match="found losses and weights of shapes"):
        g.checkpoint_loss(nats, tokens)


@pytest.mark.parametrize(
    ("deterministic", "says"),
    [
        (True, "the cell is just its weights"),
        (False, "Reruns differ: a claim about the cell needs 10"),
        (None, "No run was"),
    ],
)
def test_the_three_claims_are_kept_apart(deterministic, says):
    candidates, control = three()
    decisions = g.confirm(candidates, control, **DESIGN)
    best_cell = g.select(np.random.default_rng(9).standard_normal((5, 5)))["best_cell"]
    result = g.claims(
        ([1.0, 5.0, 0.5], [1, 3, 1]),
        decisions,
        best_cell,
        metric=NATS,
        cell_seeds=(31, 42),
        deterministic=deterministic,
    )
    assert {name: claim["claim"] for name, claim in result.items()} == {
        "checkpoint": "G1",
        "init_seed": "G2",
        "cell": "G3",
    }
    weights, seed, cell = (claim["sentence"] for claim in result.values())
    assert result["checkpoint"]["test_loss"] == g.checkpoint_loss([1.0, 5.0, 0.5], [1, 3, 1])
    assert "selected on validation loss" in weights and "(95% interval over 3 test documents)" in weights
    assert weights.endswith("This says nothing about seeds.")
    assert all(decision["sentence"] in seed for decision in decisions)
    assert "init seed 31 with data seed 42" in cell and f"{best_cell['expected_best_by_luck']:.3g} better" in cell
    assert says in cell
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_one_test_document_gives_no_interval():
    best_cell = {"index": [0, 0], "gain": 0.1, "expected_best_by_luck": 0.2}
    plain = {"cell_seeds": (1, 2), "deterministic": True, "unit": "examples"}
    result = g.claims(([3.0], [2]), [], best_cell, metric=NATS, **plain)
    assert "test loss of 1.5 nats per token over 1 test examples." in result["checkpoint"]["sentence"]


def test_protocol_hash_is_canonical():
    accents = {"study": "Wörter"}
    assert g.protocol_hash(accents) == hashlib.sha256(canonical(accents).encode()).hexdigest()
    assert g.protocol_hash({"b": 1, "a": [0.5, "x"]}) == g.protocol_hash({"a": [0.5, "x"], "b": 1})
    assert g.protocol_hash({"a": 1}) != g.protocol_hash({"a": 2})
    assert g.protocol_hash({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    with pytest.raises(ValueError):
        g.protocol_hash({"margin": math.nan})


def test_the_words_of_the_metric_are_those_of_the_task():
    """A better candidate is lower or higher, as the metric has it; nothing but words changes."""
    golden, control = losses(0.2, sd=0.05)
    nats, share = (confirm(golden, control, **(SEEDS | {"metric": metric})) for metric in (NATS, SHARE))
    assert "its loss is 0.2 nats per token lower than that of 36" in nats["sentence"]
    assert "its accuracy is 0.2 share of images higher than that of 36" in share["sentence"]
    assert nats | {"sentence": ""} == share | {"sentence": ""}
    useless = confirm(golden, control, **(SEEDS | {"metric": SHARE, "margin_useful": 0.5}))
    assert "below the useful 0.5 share of images" in useless["sentence"]
    best_cell = {"index": [0, 0], "gain": 0.1, "expected_best_by_luck": 0.2}
    plain = {"cell_seeds": (1, 2), "deterministic": True, "unit": "images"}
    claims = g.claims(([-1.0, -0.5, 0.0], [1, 1, 1]), [], best_cell, metric=SHARE, **plain)
    said, loss = claims["checkpoint"]["sentence"], claims["checkpoint"]["test_loss"]
    assert "selected on validation accuracy, have a test accuracy of 0.5 share of images" in said
    assert f"[{max(-loss['ci_high'], 0.0):.4g}, {min(-loss['ci_low'], 1.0):.4g}]" in said
    assert "0.1 share of images better than the average cell" in claims["cell"]["sentence"]
