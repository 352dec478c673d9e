"""Tables as people have them: any dialect, long or wide, with what spreadsheets and trackers add."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from infinito.readers import Options, Results, read

LONG = "model,seed,accuracy\n" + "".join(
    f"{arm},{s},{v + s / 100}\n" for arm, v in (("a", 0.8), ("b", 0.7)) for s in range(4)
)


def written(folder: Path, text: str | bytes, name: str = "runs.csv") -> str:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


def judged(folder: Path, text: str | bytes, name: str = "runs.csv", **options: object) -> Results:
    return read(written(folder, text, name), Options(**options))  # type: ignore[arg-type]


def figures(found: Results) -> list[tuple[object, ...]]:
    """What was read, in an order of its own."""
    return sorted(found.table[["arm", "task", "metric", "seed", "value"]].itertuples(index=False, name=None))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace(",", "|"),
        lambda text: text.replace(",", ";").replace(".", ","),
        lambda text: "\ufeff" + text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: "# made by hand\n" + text,
        lambda text: text + ",,\n,,\n",
        lambda text: text + "model,seed,accuracy\n",
        lambda text: text + "Mean,,0.765\nStd,,0.05\n",
        lambda text: "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in text.splitlines()),
        lambda text: text.replace("model,seed", "Model , Seed"),
        lambda text: "\n".join([text.splitlines()[0], *reversed(text.splitlines()[1:])]),
    ],
)
def test_the_dialect_does_not_matter(tmp_path: Path, change: object) -> None:
    assert figures(judged(tmp_path, LONG)) == figures(judged(tmp_path, change(LONG)))  # type: ignore[operator]


@pytest.mark.parametrize("name", ["runs.json", "runs.jsonl", "runs.parquet", "runs.tsv"])
def test_the_format_does_not_matter(tmp_path: Path, name: str) -> None:
    first = judged(tmp_path, LONG)
    frame = pd.read_csv(tmp_path / "runs.csv")
    file = tmp_path / name
    if name.endswith("parquet"):
        frame.astype({"model": "category"}).set_index("seed").to_parquet(file)
    elif name.endswith("tsv"):
        frame.to_csv(file, sep="\t", index=False)
    else:
        records = frame.to_dict("records")  # not to_json, which rounds
        file.write_text("\n".join(map(json.dumps, records)) if name.endswith("l") else json.dumps(records))
    assert figures(first) == figures(read(str(file), Options()))


def test_a_column_a_seed_is_a_row_a_seed(tmp_path: Path) -> None:
    wide = pd.read_csv(pd.io.common.StringIO(LONG)).pivot(index="model", columns="seed", values="accuracy")
    wide.columns = [f"seed_{n}" for n in wide.columns]
    found = judged(tmp_path, wide.reset_index().assign(metric="accuracy").to_csv(index=False), "wide.csv")
    assert figures(judged(tmp_path, LONG)) == figures(found)
    assert found.read_as["seed"] == "columns seed_0 to seed_3"


def test_percentages_are_shares_and_said_to_be_points(tmp_path: Path) -> None:
    found = judged(tmp_path, 'model;accuracy\na;"85,19 %"\na;90 %\nb;-\n')
    assert list(found.table["value"][:2]) == [0.8519, 0.9] and np.isnan(found.table["value"][2])
    assert found.units == {"accuracy": "percentage points"}


def test_what_did_not_finish_keeps_its_status(tmp_path: Path) -> None:
    found = judged(tmp_path, "Status,model,seed,loss\nFINISHED,a,0,1.5\nRUNNING,a,1,9\nFAILED,b,0,\n")
    assert list(found.table["status"]) == ["FINISHED", "RUNNING", "FAILED"]
    found = judged(tmp_path, "model,fold,auc,info\na,0,0.9,\na,1,,out of memory\n")
    assert list(found.table["status"]) == ["", "failed: out of memory"] and found.pairing == "fold"


def test_folds_pair_where_no_two_arms_share_a_seed(tmp_path: Path) -> None:
    rows = [f"{arm},{fold},{seed}{fold},0.{fold + 1}" for arm, seed in (("a", 1), ("b", 2)) for fold in range(3)]
    assert judged(tmp_path, "model,fold,seed,auc\n" + "\n".join(rows)).pairing == "fold"
    rows = [f"{arm},{fold},{fold},0.{fold + 1}" for arm in "ab" for fold in range(3)]
    assert judged(tmp_path, "model,fold,seed,auc\n" + "\n".join(rows)).pairing == "seed"


def test_a_chart_export_has_a_column_a_run_and_bands_that_are_none(tmp_path: Path) -> None:
    runs = ["base-1", "base-2", "new-1"]
    header = ",".join(["Step", *(f'"{run} - val_loss{band}"' for run in runs for band in ("", "__MIN", "__MAX"))])
    found = judged(tmp_path, f"{header}\n1,3,3,3,4,4,4,5,5,5\n2,2,2,2,,,,1,1,1\n")
    assert sorted(set(found.table["arm"])) == ["base", "new"] and len(found.table) == 5
    assert set(found.table["run"]) == set(runs) and "6 columns __MIN and __MAX" in found.remarks[0]


@pytest.mark.parametrize(
    "text, options, message",
    [
        ("", {}, "found an empty file"),
        ("model,seed\na,0\n", {}, "metric: found no column of numbers"),
        ("model,seed,x,y\na,0,1,2\nb,0,2,3\n", {}, "metric: found x, y; say which: --metric x"),
        ("model,optimizer,loss\na,c,1\na,d,2\nb,c,3\n", {}, "arm: found model, optimizer"),
        ("model,loss\na,1\n", {"arm": "modle"}, "--arm: found 'modle'; allowed: a column: model, loss"),
        ("model,loss\na,bad\n", {"metric": ("loss",)}, "loss: found 'bad'; allowed: numbers"),
        ("loss,x\n1,2\n", {"metric": ("accuracy",)}, "--metric: found 'accuracy'"),
        ("loss,loss\n1,2\n", {}, "found two columns 'loss'"),
        (b"\x00\x01\x02", {}, "bytes that are no text"),
        ("model,acc\na,85 %\nb,0.9\n", {}, "acc: found '85 %' beside '0.9'; allowed: one of both"),
        ("model,loss\na,1,2,3\nb,1\n", {}, "not a readable table"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, text: str | bytes, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError) as error:
        judged(tmp_path, text, **options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_two_hundred_thousand_rows_in_seconds(tmp_path: Path) -> None:
    """Read in one pass; the bound is far above what it takes, and far below what a loop over rows would."""
    import time

    n = 200_000
    frame = pd.DataFrame({"model": np.repeat(["a", "b"], n // 2), "seed": np.tile(np.arange(n // 2), 2)})
    frame.assign(accuracy=np.linspace(0, 1, n)).to_csv(tmp_path / "many.csv", index=False)
    began = time.process_time()
    assert len(read(str(tmp_path / "many.csv"), Options()).table) == n
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    "text, pattern",
    [
        ("seed,base,ours\n0,0.1,0.2\n1,0.3,0.4\n", "{arm}"),
        ("seed,base_loss,ours_loss\n0,0.1,0.2\n1,0.3,0.4\n", "{arm}_{metric}"),
        ("seed;loss of base;loss of ours\n0;0,1;0,2\n1;0,3;0,4\n", "{metric} of {arm}"),
    ],
)
def test_a_column_an_arm(tmp_path: Path, text: str, pattern: str) -> None:
    table = judged(tmp_path, text, pattern=pattern).table
    found = {(row.arm, row.seed): row.value for row in table.itertuples()}
    assert found == {("base", "0"): 0.1, ("base", "1"): 0.3, ("ours", "0"): 0.2, ("ours", "1"): 0.4}
    assert set(table["metric"]) == {"loss" if "metric" in pattern else "value"}
    with pytest.raises(ValueError, match="--pattern: 'x{arm}' fits no column of numbers"):
        judged(tmp_path, text, pattern="x{arm}")


def test_a_column_an_arm_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found base, ours; say which: .*--pattern '{arm}'"):
        judged(tmp_path, "seed,base,ours\n0,0.1,0.2\n")


def test_json_by_arm_and_seed(tmp_path: Path) -> None:
    nested = judged(tmp_path, '{"a": {"0": {"acc": 0.5}, "seed_1": {"acc": 0.6}}, "b": {"0": {"acc": 0.7}}}', "n.json")
    assert nested.table[["arm", "seed", "metric", "value"]].to_numpy().tolist() == [
        ["a", "0", "acc", 0.5], ["a", "1", "acc", 0.6], ["b", "0", "acc", 0.7],
    ]  # fmt: skip
    lists = judged(tmp_path, '{"ours": [0.5, 0.6], "baseline": [0.4, 0.5, 0.3]}', "l.json")
    assert lists.table["arm"].tolist() == ["ours"] * 2 + ["baseline"] * 3 and lists.pairing is None
    columns = judged(tmp_path, '{"seed": [0, 1], "loss": [0.4, 0.5]}', "c.json")
    assert columns.table["seed"].tolist() == ["0", "1"] and set(columns.table["metric"]) == {"loss"}
