"""What is prepared of arrays: splits, standardising, the manifest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from infinito import tasks
from infinito.storage import read_json
from infinito.tasks.pool import Pool
from infinito.tasks.shares import divided

Prepare = Callable[..., Path]
DRAWS = np.random.default_rng(1)
N = 500
TABLE = pd.DataFrame(
    {
        "a": DRAWS.normal(1e9, 2.0, N),
        "b": DRAWS.integers(0, 9, N),
        "c": 3.0,
        "y": DRAWS.choice(["cat", "dog", "ant"], N),
    }
)


def loaded(folder: Path) -> Pool:
    found = tasks.load(folder)
    assert isinstance(found, Pool)
    return found


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    TABLE.to_parquet(tmp_path / "data.parquet")
    return TABLE


def test_the_training_split_has_mean_0_and_variance_1(prepare: Prepare, table: pd.DataFrame) -> None:
    folder = prepare()
    data, manifest = loaded(folder), read_json(folder / "manifest.json")
    torch.testing.assert_close(data.inputs[:, :2].mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(data.inputs[:, :2].std(0, correction=0), torch.ones(2))
    assert not data.inputs[:, 2].any()  # a constant one
    assert manifest["inputs"] == ["a", "b", "c"] and manifest["classes"] == ["ant", "cat", "dog"]
    whole = torch.cat([data.inputs, data.validation.inputs, data.test.inputs]).double().numpy()
    constants = manifest["input_constants"]
    back = whole * constants["sd"] + constants["mean"]
    np.testing.assert_allclose(np.sort(back[:, 0]), np.sort(table["a"]), rtol=0, atol=1e-5)


def test_a_constant_feature_keeps_its_scale_however_it_rounds(prepare: Prepare, tmp_path: Path) -> None:
    """The mean of many 0.1 is not quite 0.1, and their standard deviation not quite 0."""
    n = 1000
    frame = pd.DataFrame({"a": np.arange(n), "b": np.full(n, 0.1), "y": np.arange(n) % 2})
    frame.to_parquet(tmp_path / "data.parquet")
    folder = prepare()
    assert read_json(folder / "manifest.json")["input_constants"]["sd"][1] == 1.0
    assert loaded(folder).inputs[:, 1].abs().max() < 1e-6


def test_without_standardising_the_numbers_are_as_they_came(prepare: Prepare, table: pd.DataFrame) -> None:
    data = loaded(prepare(standardise=False, inputs=["b"]))
    whole = torch.cat([data.inputs, data.validation.inputs, data.test.inputs])
    assert sorted(whole.flatten().tolist()) == sorted(table["b"].tolist())


def test_no_example_is_in_two_splits_however_often_it_comes(prepare: Prepare, tmp_path: Path) -> None:
    rows = pd.DataFrame({"a": DRAWS.integers(0, 200, 3000), "y": DRAWS.integers(0, 2, 3000)})
    rows.to_parquet(tmp_path / "data.parquet")
    folder = prepare(standardise=False)
    data, manifest = loaded(folder), read_json(folder / "manifest.json")
    parts = [set(x.flatten().tolist()) for x in (data.inputs, data.validation.inputs, data.test.inputs)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert len(set.union(*parts)) == rows["a"].nunique() and sum(map(len, parts)) == rows["a"].nunique()
    assert manifest["overlap"] == {"validation": {"train": 0.0}, "test": {"train": 0.0, "validation": 0.0}}
    assert manifest["splits"]["test"]["different_examples"] == len(parts[2])


def test_more_examples_move_none_of_the_others() -> None:
    x = DRAWS.normal(size=(1000, 3))
    few, many = divided(x[:500], {"validation": 0.1, "test": 0.3}, 4), divided(x, {"validation": 0.1, "test": 0.3}, 4)
    for split in few:
        assert np.array_equal(few[split], many[split][many[split] < 500])
    assert [len(many[split]) for split in ("train", "validation", "test")] == pytest.approx([600, 100, 300], abs=50)
    assert not np.array_equal(many["test"], divided(x, {"validation": 0.1, "test": 0.3}, 5)["test"])


def test_preparing_twice_gives_the_same_bytes(prepare: Prepare, table: pd.DataFrame) -> None:
    one, other = prepare(), prepare()
    for name in ("train.parquet", "validation.parquet", "test.parquet", "manifest.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_splits_of_the_source_stay_and_missing_ones_come_from_training(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    TABLE[:400].to_csv(tmp_path / "all" / "train.csv", index=False)
    TABLE[400:].to_csv(tmp_path / "all" / "test.csv.gz", index=False)
    data = loaded(prepare(source="all", inputs=["b"], standardise=False, overlap_allowed=True))
    assert data.test.inputs.flatten().tolist() == TABLE["b"][400:].tolist()
    assert len(data.inputs) + len(data.validation.inputs) == 400 and 40 < len(data.validation.inputs) < 120
    TABLE[350:400].to_csv(tmp_path / "all" / "valid.csv", index=False)
    with pytest.raises(ValueError, match="^prepare: found 100 % of the validation examples in train too; allowed: at"):
        prepare(source="all", standardise=False)
    folder = prepare(source="all", inputs=["b"], standardise=False, overlap_allowed=True)
    data = loaded(folder)
    assert data.inputs.flatten().tolist() == TABLE["b"][:400].tolist()
    assert data.validation.inputs.flatten().tolist() == TABLE["b"][350:400].tolist()
    overlap = read_json(folder / "manifest.json")["overlap"]  # and the manifest says so
    assert overlap["validation"] == {"train": 1.0} and overlap["test"]["train"] == 1.0  # of so few values


def test_what_classes_are_called_does_not_matter(prepare: Prepare, tmp_path: Path) -> None:
    targets = []
    for names in (["ant", "cat", "dog"], [3, 5, 11], [3.0, 5.0, 11.0], ["a", "b", "c"]):
        renamed = TABLE["y"].map(dict(zip(["ant", "cat", "dog"], names, strict=True)))
        TABLE.assign(y=renamed).to_parquet(tmp_path / "data.parquet")
        targets.append(loaded(prepare()).targets)
    assert all(torch.equal(targets[0], other) for other in targets[1:])
    TABLE.sort_values("y").to_parquet(tmp_path / "data.parquet")  # nor which comes first
    assert torch.equal(loaded(prepare()).targets.bincount(), targets[0].bincount())


def test_several_labels(prepare: Prepare, tmp_path: Path) -> None:
    table = pd.DataFrame({"a": DRAWS.normal(size=N), "red": DRAWS.integers(0, 2, N), "hot": DRAWS.random(N) < 0.5})
    table.to_parquet(tmp_path / "data.parquet")
    folder = prepare(kind="labels", targets=["red", "hot"])
    data = loaded(folder)
    assert dict(data.task.given) == {"shape": (1,), "labels": 2} and data.task.output == (2,)
    assert data.targets.dtype == torch.float32 and set(data.targets.unique().tolist()) == {0.0, 1.0}
    assert read_json(folder / "manifest.json")["labels"] == ["red", "hot"]


def test_values_are_standardised_and_their_error_is_told_in_their_own_unit(prepare: Prepare, tmp_path: Path) -> None:
    table = pd.DataFrame({"a": DRAWS.normal(size=N), "y": DRAWS.normal(500, 20, N), "z": DRAWS.normal(size=N)})
    table.to_parquet(tmp_path / "data.parquet")
    data = loaded(prepare(kind="values", inputs=["a"]))
    torch.testing.assert_close(data.targets.std(correction=0), torch.tensor(1.0))
    score, guess = data.task.measure(torch.zeros_like(data.targets), data.targets), data.task.scores["absolute_error"]
    assert float(score["absolute_error"][0].mean()) == pytest.approx(guess.guess, rel=1e-5)
    assert guess.guess == pytest.approx(16, rel=0.1) and guess.unit == "units of the target"
    plain = loaded(prepare(kind="values", inputs=["a"], standardise=False))
    assert plain.task.metric.guess == pytest.approx(400, rel=0.2) and plain.targets.mean() > 400
    assert plain.task.scores["absolute_error"].guess == pytest.approx(guess.guess)
    for standardise in (True, False):
        two = loaded(prepare(kind="values", inputs=["a"], targets=["y", "z"], standardise=standardise))
        assert two.task.output == (2,) and two.task.scores["absolute_error"].guess == pytest.approx(0.8, rel=0.05)
        constant = two.targets.mean(0).expand_as(two.targets)
        score = two.task.measure(constant, two.targets)
        assert float(score["absolute_error"][0].mean()) == pytest.approx(
            two.task.scores["absolute_error"].guess, rel=1e-3
        )


def test_images_of_bytes_are_between_0_and_1_and_channels_come_first(prepare: Prepare, tmp_path: Path) -> None:
    pixels = DRAWS.integers(0, 256, (60, 6, 5, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", x=pixels, y=np.arange(60) % 2)
    folder = prepare(source="data.npz", standardise=False)
    data = loaded(folder)
    assert data.inputs.shape[1:] == (3, 6, 5) and data.task.given["shape"] == (3, 6, 5)
    assert data.inputs.min() >= 0 and data.inputs.max() <= 1 and data.inputs.max() > 0.9
    assert data.task.metric.unit == "nats per image"
    data = loaded(prepare(source="data.npz"))
    torch.testing.assert_close(data.inputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(data.inputs.std((0, 2, 3), correction=0), torch.ones(3))


def test_missing_files_and_a_prepared_folder_that_was_changed(prepare: Prepare, table: pd.DataFrame) -> None:
    folder = prepare()
    (folder / "test.parquet").write_bytes((folder / "train.parquet").read_bytes())
    with pytest.raises(ValueError, match="test.parquet: its contents are not those that manifest.json names"):
        tasks.load(folder)
