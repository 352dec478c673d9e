"""What a best-seed report would have claimed of the same runs."""

import json

import numpy as np
import pytest

from infinito.questions.protocol import has_percentages, report_protocol, report_protocols
from tests.comparisons import with_mean_and_sd


def test_report_protocol():
    result = report_protocol([1.0, 3.0, 2.0], [2.0, 2.0, 2.0])
    assert result["mean_percent"] == 0 and result["sd_percent"] == 50
    assert (result["wins"], result["n"], result["best_seed"], result["best_percent"]) == (1, 3, 0, 50)
    assert result["expected_best_by_luck"] == pytest.approx(0.846284 * 50, abs=1e-4)
    assert result["p_value"] == 1
    assert json.loads(json.dumps(result)) == result


def test_report_protocol_expects_33_percent_from_the_luckiest_of_10_equal_seeds():
    percent = with_mean_and_sd(3.44, 19.55, 10)
    result = report_protocol(100 - percent, np.full(10, 100.0))
    assert result["expected_best_by_luck"] == pytest.approx(33.5, abs=0.05)
    assert result["p_value"] == pytest.approx(0.591, abs=1e-3)


def test_report_protocol_refuses_what_has_no_percentage():
    with pytest.raises(ValueError, match="found baseline loss 0"):
        report_protocol([1.0, 1.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="found 1 pairs"):
        report_protocol([1.0], [1.0])


def test_percentages_of_a_metric_that_is_better_when_higher():
    """Its losses are negative: 0.9 right instead of 0.6 is a gain of 50 %."""
    result = report_protocol([-0.9, -0.3], [-0.6, -0.6])
    assert result["best_percent"] == pytest.approx(50) and result["mean_percent"] == pytest.approx(0)
    assert result["wins"] == 1
    with pytest.raises(ValueError, match="found baseline loss -1"):
        report_protocol([1.0, 1.0], [-1.0, 1.0])
    assert [has_percentages(x) for x in ([1.0, 2.0], [-1.0, -2.0], [1.0, -1.0], [0.0, 1.0])] == [
        True,
        True,
        False,
        False,
    ]


def test_one_report_after_another_claims_from_its_own_seeds():
    candidate, baseline = np.random.default_rng(0).uniform(1, 2, (2, 25))
    claims = report_protocols(candidate, baseline)
    assert [claim["first_pair"] for claim in claims] == [0, 10]  # 5 pairs are left over
    assert claims[1] == {"first_pair": 10} | report_protocol(candidate[10:20], baseline[10:20])
    assert len({claim["mean_percent"] for claim in claims}) == 2
    assert [claim["n"] for claim in report_protocols(candidate, baseline, size=6)] == [6] * 4
    assert report_protocols(candidate, baseline, size=26) == []
