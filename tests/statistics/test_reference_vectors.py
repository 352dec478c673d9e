"""The library against answers computed with scipy, statsmodels and pingouin."""

import json
from pathlib import Path

import pytest

from tests.statistics.reference_vectors import KINDS, evaluate

VECTORS = [json.loads(line) for line in Path(__file__).with_name("reference_vectors.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["id"] for vector in VECTORS])
def test_vector(vector):
    answer, expected = evaluate(vector["kind"], vector["input"]), vector["expected"]
    assert answer.keys() == expected.keys()
    for key, value in expected.items():
        rel = 1e-4 if key == "reml" else 1e-6
        assert answer[key] == pytest.approx(value, rel=rel, abs=1e-9), key


def test_every_kind_has_a_vector():
    assert {vector["kind"] for vector in VECTORS} == KINDS.keys()
