"""A result of another shape than its stage writes is one line, and the report that is there stays."""

import json
from pathlib import Path

import pytest

from infinito.stages import STAGES
from infinito.study import load_study
from tests.conftest import in_process


@pytest.mark.parametrize(
    "name, key", [("compare", "sentence"), ("compare", "p_adjusted"), ("compare", "n_pairs"), ("golden", "decisions")]
)
def test_a_result_that_lacks_something_is_one_line(finished_study: Path, name: str, key: str) -> None:
    file, page = finished_study / f"results/{name}.json", finished_study / "results/report.html"
    page.write_text("the report that was there")
    file.write_text(json.dumps({k: value for k, value in json.loads(file.read_text()).items() if k != key}))
    with pytest.raises(ValueError, match=rf"^[^\n]*{name}\.json[^\n]*{key}[^\n]*run [^\n]* again \(dvc repro\)$"):
        STAGES["report"](load_study(finished_study), in_process)
    assert page.read_text() == "the report that was there"
