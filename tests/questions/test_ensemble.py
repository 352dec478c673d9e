"""Ensembles: known answers, Jensen's inequality, honest units, and bad input."""

import functools
import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from infinito.questions import ensemble as asked
from infinito.questions.ensemble import error_correlation, member_loss, paired_document_bootstrap
from infinito.statistics.paired import mean_estimate
from tests.comparisons import NATS, SHARE

# where nothing else is said, members average probabilities
ensemble_loss, group_losses, ensemble_curve, all_subsets_loss = (
    functools.partial(function, averaged="probabilities")
    for function in (asked.ensemble_loss, asked.group_losses, asked.ensemble_curve, asked.all_subsets_loss)
)
equal_compute = functools.partial(asked.equal_compute, metric=NATS)


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


def test_group_losses_are_those_of_the_curve():
    x = members(11)
    for entry in ensemble_curve(x, np.zeros(11), [1, 2, 3, 11])["curve"]:
        loss = group_losses(x, entry["size"])
        assert loss.shape == (entry["groups"],) and mean_estimate(loss) == entry["loss"]
        for group, value in enumerate(loss):
            mine = x[group * entry["size"] : (group + 1) * entry["size"]]
            assert value == pytest.approx(ensemble_loss(mine).mean(), rel=1e-6)


@pytest.mark.parametrize("size", [0, 5])
def test_a_group_needs_its_members(size):
    with pytest.raises(ValueError, match=f"found ensemble size {size}: with 4 members it must be 1 to 4"):
        group_losses(members(4), size)


def test_equal_compute_is_the_test_of_welch():
    rng = np.random.default_rng(2)
    ensembles, single = 2.0 + 0.1 * rng.standard_normal(5), 2.3 + 0.3 * rng.standard_normal(8)
    result = equal_compute(ensembles, single, size=4, compute="training")
    reference = stats.ttest_ind(single, ensembles, equal_var=False)
    interval = reference.confidence_interval(0.95)
    assert result["value"] == pytest.approx(single.mean() - ensembles.mean())
    assert [result["ci_low"], result["ci_high"]] == pytest.approx([interval.low, interval.high])
    assert result["p_value"] == pytest.approx(reference.pvalue) and result["df"] == pytest.approx(reference.df)
    assert (result["n"], result["n_ensembles"], result["n_single"]) == (13, 5, 8)
    assert result["ensemble_loss"] == mean_estimate(ensembles) and result["single_loss"] == mean_estimate(single)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(
    ("shift", "found"), [(1.0, "the ensembles are better"), (-1.0, "the ensembles are worse"), (0.0, "no difference")]
)
def test_the_sentence_of_equal_compute(shift, found):
    ensembles = np.array([2.0, 2.1, 1.9, 2.05])
    result = equal_compute(ensembles, ensembles[::-1] + shift, size=4, compute="inference")
    assert found in result["sentence"] and "equal inference compute" in result["sentence"]
    assert result["sentence"].startswith("4 ensembles of 4 members against 4 single models")


@pytest.mark.parametrize(("gain", "p"), [(0.0, 1.0), (0.5, 0.0)])
def test_equal_compute_without_variance(gain, p):
    result = equal_compute([2.0, 2.0], [2.0 + gain] * 3, size=2, compute="training")
    assert result["p_value"] == p and result["ci_low"] == result["ci_high"] == gain


def test_the_interval_of_equal_compute_covers():
    rng, hits = np.random.default_rng(3), 0
    for _ in range(1000):
        result = equal_compute(rng.normal(2, 0.1, 5), rng.normal(2.2, 0.3, 9), size=4, compute="training")
        hits += result["ci_low"] <= 0.2 <= result["ci_high"]
    assert 0.93 < hits / 1000 < 0.975


@pytest.mark.parametrize(
    ("ensembles", "single", "message"),
    [
        ([1.0], [1.0, 2.0], "found 1 ensembles of 4 members: a comparison needs at least 2, 1 more"),
        ([1.0, 2.0], [], "found 0 single models of equal compute: a comparison needs at least 2, 2 more"),
        ([1.0, math.nan], [1.0, 2.0], "ensembles of 4 members"),
        ([1.0, 2.0], [[1.0, 2.0]], r"single models of equal compute of shape \(1, 2\)"),
    ],
)
def test_equal_compute_refuses_what_it_cannot_compare(ensembles, single, message):
    with pytest.raises(ValueError, match=message):
        equal_compute(ensembles, single, size=4, compute="training")


def documents(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nats of two models whose losses differ by .1 nats per token in the mean, and tokens, of n documents."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(20, 400, n)
    shared = tokens * (3 + rng.standard_normal(n))
    return shared + tokens * 0.1 * (1 + rng.standard_normal(n)), shared, tokens


def test_the_bootstrap_over_documents_is_paired():
    a, b, tokens = documents(0)
    result = paired_document_bootstrap(a, b, tokens, rng=np.random.default_rng(1))
    assert result["value"] == pytest.approx((a.sum() - b.sum()) / tokens.sum()) and result["n"] == 60
    d = a - b
    error = math.sqrt(60) * (d - result["value"] * tokens).std(ddof=1) / tokens.sum()
    assert result["ci_high"] - result["ci_low"] == pytest.approx(2 * 1.96 * error, rel=0.1)
    unpaired = paired_document_bootstrap(a, np.roll(b / tokens, 1) * tokens, tokens, rng=np.random.default_rng(1))
    assert unpaired["ci_high"] - unpaired["ci_low"] > 5 * (result["ci_high"] - result["ci_low"])
    again = paired_document_bootstrap(a, b, tokens, rng=np.random.default_rng(1))
    assert again == result
    swapped = paired_document_bootstrap(b, a, tokens, rng=np.random.default_rng(1))
    assert swapped["value"] == -result["value"] and swapped["ci_low"] == pytest.approx(-result["ci_high"], rel=0.05)


def test_the_bootstrap_over_documents_covers():
    hits = 0
    for seed in range(200):
        result = paired_document_bootstrap(*documents(seed), rng=np.random.default_rng(seed))
        hits += result["ci_low"] <= 0.1 <= result["ci_high"]
    assert 0.89 < hits / 200 < 0.985


def test_the_bootstrap_over_documents_without_anything_to_resample():
    rng = np.random.default_rng(0)
    assert paired_document_bootstrap([3.0], [2.0], [2], rng=rng) == {
        "value": 0.5,
        "ci_low": None,
        "ci_high": None,
        "n": 1,
    }
    tokens = np.array([2, 7, 4])
    same = paired_document_bootstrap(3.0 * tokens, 2.7 * tokens, tokens, rng=rng)
    assert same["ci_low"] == same["ci_high"] == same["value"] == pytest.approx(0.3)
    assert paired_document_bootstrap(tokens, tokens, tokens, rng=rng)["ci_high"] == 0


@pytest.mark.parametrize(
    ("a", "b", "tokens", "message"),
    [
        ([1.0, 2.0], [1.0], [1, 1], "found shapes"),
        ([], [], [], "found shapes"),
        ([1.0, math.nan], [1.0, 1.0], [1, 1], "not finite"),
        ([1.0, 2.0], [1.0, 1.0], [1, 0], "without weight"),
    ],
)
def test_the_bootstrap_over_documents_refuses_bad_input(a, b, tokens, message):
    with pytest.raises(ValueError, match=message):
        paired_document_bootstrap(a, b, tokens, rng=np.random.default_rng(0))


def residuals(count: int, parts: int = 50, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, parts)).astype(np.float32)


def test_averaged_outputs_by_hand():
    says = [[1.0, -2.0, 0.5], [3.0, 2.0, 0.5]]  # output - target
    assert asked.ensemble_loss(says, averaged="outputs") == pytest.approx([4.0, 0.0, 0.25])
    assert member_loss(says, averaged="outputs").tolist() == [[1.0, 4.0, 0.25], [9.0, 4.0, 0.25]]
    assert member_loss(says, averaged="probabilities").tolist() == [[-1.0, 2.0, -0.5], [-3.0, -2.0, -0.5]]
    entry = asked.ensemble_curve(says, [0.0, 1.0], [1, 2], averaged="outputs")["curve"][1]
    assert entry["loss"]["value"] == pytest.approx(4.25 / 3)
    assert entry["gain_over_average_member"]["value"] == pytest.approx((5.25 + 13.25) / 2 / 3 - 4.25 / 3)
    assert entry["gain_over_best_member"]["value"] == pytest.approx(5.25 / 3 - 4.25 / 3)  # validation picks the first


def test_averaging_outputs_is_the_squared_error_of_the_mean_output():
    rng = np.random.default_rng(4)
    outputs, targets = rng.standard_normal((5, 40)), rng.standard_normal(40)
    expected = (outputs.mean(0) - targets) ** 2
    assert asked.ensemble_loss(outputs - targets, averaged="outputs") == pytest.approx(expected)


@pytest.mark.parametrize(("averaged", "says"), [("probabilities", members), ("outputs", residuals)])
def test_jensens_inequality_holds_for_every_part(averaged, says):
    for seed in range(20):
        x = says(6, seed=seed).astype(float)
        average = member_loss(x, averaged=averaged).mean(0)
        assert (asked.ensemble_loss(x, averaged=averaged) <= average + 1e-12).all()
        for entry in asked.ensemble_curve(x, np.zeros(6), [2, 3, 6], averaged=averaged)["curve"]:
            assert entry["gain_over_average_member"]["value"] > 0


def test_independent_errors_shrink_with_the_number_of_members_and_equal_ones_do_not():
    x = residuals(8, parts=20_000)
    one, four, eight = asked.ensemble_curve(x, np.zeros(8), [1, 4, 8], averaged="outputs")["curve"]
    assert four["loss"]["value"] == pytest.approx(one["loss"]["value"] / 4, rel=0.05)
    assert eight["loss"]["value"] == pytest.approx(one["loss"]["value"] / 8, rel=0.05)
    assert error_correlation(x) == pytest.approx(0, abs=0.02)
    same = asked.ensemble_curve(np.repeat(x[:1], 4, axis=0), np.zeros(4), [4], averaged="outputs")
    assert same["error_correlation"] == pytest.approx(1)
    assert same["curve"][0]["gain_over_average_member"]["value"] == pytest.approx(0, abs=1e-6)


def test_the_sentence_of_equal_compute_is_in_the_unit_of_the_metric():
    said = [
        asked.equal_compute([-0.9, -0.8], [-0.7, -0.6], metric=m, size=2, compute="training") for m in (NATS, SHARE)
    ]
    assert said[0]["sentence"].replace("nats per token", "share of images") == said[1]["sentence"]
    assert "nats per token" in said[0]["sentence"]
