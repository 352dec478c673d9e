"""Golden seeds: known answers, the confirmation rule, and every way to break it."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from infinito import golden as g
from infinito.attribute import mean_squares

SEEDS = {
    "golden_init": 7,
    "data_seeds": list(range(100, 112)),
    "control_inits": np.arange(1000, 1036).reshape(12, 3).tolist(),
    "selection_inits": list(range(10)),
    "selection_data_seeds": list(range(5)),
    "registered": True,
    "margin_useful": 0.05,
}


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


def test_select_of_a_constant_grid():
    result = g.select(np.ones((4, 3)))
    assert result["best"]["naive_gain"] == 0 and result["best"]["james_stein_gain"] == 0 and result["p_init"] == 1
    assert json.loads(json.dumps(result, allow_nan=False)) == result


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
    result = g.confirm(*losses(gain), **(SEEDS | changes))
    assert result["status"] == status
    assert result["difference"]["value"] == pytest.approx(gain)
    assert result["reason"] is None
    assert "init seed 7" in result["sentence"].lower() and "\n" not in result["sentence"]
    assert ("not registered" in result["sentence"]) == (status == "NOT_CONFIRMED" and not result["registered"])
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_the_level_is_one_sided():
    golden, control = losses(0.07, sd=0.2, seed=3)
    result = g.confirm(golden, control, **SEEDS)
    d = control.mean(1) - golden
    t = d.mean() / (d.std(ddof=1) / math.sqrt(12))
    assert result["p_value"] == pytest.approx(stats.t.sf(t, 11))
    assert result["difference"]["ci_low"] == pytest.approx(d.mean() - stats.t.isf(0.025, 11) * d.mean() / t)
    assert (result["difference"]["ci_low"] > 0) == (result["p_value"] < 0.025)
    assert g.confirm(-golden, -control, **SEEDS)["p_value"] == pytest.approx(1 - result["p_value"])


def test_a_confirmed_but_useless_gain_says_so():
    result = g.confirm(*losses(0.2, sd=0.05), **(SEEDS | {"margin_useful": 0.5}))
    assert result["status"] == "GOLDEN_CONFIRMED" and "below the useful 0.5" in result["sentence"]


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
    result = g.confirm(*losses(0.5), **(SEEDS | changes))
    assert result["status"] == "INVALID" and reason in result["reason"] and reason in result["sentence"]


@pytest.mark.parametrize("n", [1, 2, 9])
def test_fewer_than_10_data_seeds_make_a_confirmation_invalid(n):
    golden, control = losses(0.5)
    few = {"data_seeds": SEEDS["data_seeds"][:n], "control_inits": SEEDS["control_inits"][:n]}
    result = g.confirm(golden[:n], control[:n], **(SEEDS | few))
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
        g.confirm(golden, control, **SEEDS)
    assert "\n" not in str(error.value)


def test_protocol_hash_is_canonical():
    assert g.protocol_hash({"b": 1, "a": [0.5, "x"]}) == g.protocol_hash({"a": [0.5, "x"], "b": 1})
    assert g.protocol_hash({"a": 1}) != g.protocol_hash({"a": 2})
    assert g.protocol_hash({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    with pytest.raises(ValueError):
        g.protocol_hash({"margin": math.nan})
