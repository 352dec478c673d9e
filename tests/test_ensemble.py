"""Ensembles: known answers, Jensen's inequality, honest units, and bad input."""

import itertools
import json
import math

import numpy as np
import pytest

from infinito.compare import mean_estimate
from infinito.ensemble import all_subsets_loss, ensemble_curve, ensemble_loss, error_correlation


def members(count: int, tokens: int = 50, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.log(rng.dirichlet(np.ones(5), (count, tokens))[..., 0]).astype(np.float32)


def test_the_ensemble_averages_probabilities():
    p = np.array([[0.5, 0.1], [0.25, 0.3]])
    assert ensemble_loss(np.log(p)) == pytest.approx([-math.log(0.375), -math.log(0.2)])


def test_averaging_whole_distributions_gives_the_same_cross_entropy():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(7), (4, 30))
    target = rng.integers(0, 7, 30)
    full = -np.log(p.mean(0)[np.arange(30), target])
    assert ensemble_loss(np.log(p)[:, np.arange(30), target]) == pytest.approx(full)


def test_tiny_probabilities_do_not_underflow():
    assert ensemble_loss(np.array([[-5000.0], [-5000.0]])) == pytest.approx([5000.0])


def test_leading_axes_are_independent_ensembles():
    x = members(6).reshape(2, 3, 50)
    assert ensemble_loss(x)[1] == pytest.approx(ensemble_loss(x[1]))


def test_groups_are_disjoint_and_in_the_given_order():
    x = members(7).astype(float)
    entry = ensemble_curve(x, np.arange(7.0), [3])["curve"][0]
    loss = np.array([ensemble_loss(x[:3]).mean(), ensemble_loss(x[3:6]).mean()])
    assert entry["size"] == 3 and entry["groups"] == 2
    assert entry["loss"] == pytest.approx(mean_estimate(loss))
    average = np.array([-x[:3].mean(), -x[3:6].mean()]) - loss
    assert entry["gain_over_average_member"] == pytest.approx(mean_estimate(average))


def test_the_best_member_is_chosen_on_validation_and_scored_on_test():
    x = members(4)
    test_loss = -x.mean(1)
    misleading = ensemble_curve(x, -test_loss, [2])["curve"][0]  # validation picks the member that is worse on test
    gain = np.array(
        [max(test_loss[:2]) - ensemble_loss(x[:2]).mean(), max(test_loss[2:]) - ensemble_loss(x[2:]).mean()]
    )
    assert misleading["gain_over_best_member"]["value"] == pytest.approx(gain.mean(), rel=1e-5)
    assert ensemble_curve(x, test_loss, [2])["curve"][0]["gain_over_best_member"]["value"] < gain.mean()


def test_no_ensemble_is_worse_than_its_average_member():
    for seed in range(20):
        for entry in ensemble_curve(members(12, seed=seed), np.zeros(12), [2, 3, 4, 6, 12])["curve"]:
            assert entry["gain_over_average_member"]["value"] > 0


def test_one_group_has_no_interval_and_one_member_no_gain():
    single, whole = ensemble_curve(members(4), np.zeros(4), [1, 4])["curve"]
    assert single["gain_over_average_member"]["value"] == pytest.approx(0, abs=1e-6) and single["groups"] == 4
    assert whole["groups"] == 1 and whole["loss"]["ci_low"] is None and whole["loss"]["ci_high"] is None


def test_identical_members_gain_nothing_and_correlate_fully():
    result = ensemble_curve(np.repeat(members(1), 4, axis=0), np.zeros(4), [2])
    assert result["error_correlation"] == pytest.approx(1)
    assert result["curve"][0]["gain_over_average_member"]["value"] == pytest.approx(0, abs=1e-6)
    assert error_correlation(members(40, tokens=2000)) == pytest.approx(0, abs=0.01)
    assert error_correlation(members(1)) is None and error_correlation(np.zeros((3, 5))) is None


def test_the_jackknife_over_all_subsets_by_hand():
    x = members(5)
    loss = {s: float(ensemble_loss(x[list(s)]).mean()) for s in itertools.combinations(range(5), 2)}
    left_out = np.array([np.mean([v for s, v in loss.items() if i not in s]) for i in range(5)])
    result = all_subsets_loss(x, 2)
    assert result["value"] == pytest.approx(np.mean(list(loss.values())))
    reach = 2.7764451 * math.sqrt(4 / 5 * ((left_out - left_out.mean()) ** 2).sum())
    assert result["ci_high"] - result["value"] == pytest.approx(reach, rel=1e-5) and result["n"] == 5


def test_subsets_of_one_are_the_plain_mean_with_its_t_interval():
    x = members(6).astype(float)
    assert all_subsets_loss(x, 1) == pytest.approx(mean_estimate(-x.mean(1)))


def test_the_result_is_plain_json():
    result = ensemble_curve(members(5), np.zeros(5), [1, 2, 5])
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(
    ("log_prob", "validation", "sizes", "message"),
    [
        (np.zeros((4, 9)), np.zeros(4), [2, 5], r"found ensemble sizes \[2, 5\]: with 4 members each must be 1 to 4"),
        (np.zeros((4, 9)), np.zeros(4), [0], r"found ensemble sizes \[0\]"),
        (np.zeros((4, 9)), np.zeros(4), [], r"found ensemble sizes \[\]"),
        (np.zeros((4, 9)), np.zeros(3), [2], "shapes"),
        (np.zeros(9), np.zeros(9), [2], "shapes"),
        (np.full((4, 9), -math.inf), np.zeros(4), [2], "not finite"),
        (np.zeros((4, 9)), np.full(4, math.nan), [2], "not finite"),
    ],
)
def test_bad_input_is_one_clear_line(log_prob, validation, sizes, message):
    with pytest.raises(ValueError, match=message) as error:
        ensemble_curve(log_prob, validation, sizes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [0, 4])
def test_the_jackknife_needs_a_member_to_leave_out(size):
    with pytest.raises(ValueError, match=f"found size {size} and 4 members"):
        all_subsets_loss(members(4), size)
