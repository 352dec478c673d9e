"""Text that can't be prepared is refused in one clear line."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.tasks.text.corpus import SETTINGS, Prepare

pytest.importorskip("datasets")
tokenizers = pytest.importorskip("tokenizers")


def folder_with(path: Path, **files: str | bytes) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name.replace("_", ".")).write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "prepare.source: .*corpus: no train text; allowed: train.txt, .*, train.parquet"),
        (
            {"train_txt": "a b\n" * 99, "test_txt": "a\n"},
            "corpus: no validation text; allowed: .*, valid.txt,",
        ),
        ({"train_txt": "a\n" * 99, "valid_txt": "", "test_txt": "a\n"}, "corpus: the validation text is empty"),
        ({"train_txt": "\n \n" * 99, "valid_txt": "a\n", "test_txt": "a\n"}, "corpus: the train text is empty"),
        (
            {"train_txt": "a b c\n", "valid_txt": "a\n", "test_txt": "a\n"},
            "prepare.length: found 16; the training",
        ),
        ({"train_txt": b"a\xff\n", "valid_txt": "a\n", "test_txt": "a\n"}, "train.txt: not readable as text: .*utf-8"),
        (
            {"train_parquet": b"PAR1 no", "valid_txt": "", "test_txt": ""},
            "train.parquet: not a readable Parquet",
        ),
    ],
)
def test_a_bad_source_folder_is_one_clear_line(
    files: dict[str, str | bytes], message: str, prepare: Prepare, tmp_path: Path
) -> None:
    folder_with(tmp_path / "corpus", **files)
    with pytest.raises(ValueError, match=message) as caught:
        prepare(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_bad_column_is_named(prepare: Prepare, tmp_path: Path) -> None:
    file = tmp_path / "all.parquet"
    cases: list[tuple[dict[str, list[Any]], str]] = [
        ({"words": ["a"], "n": [1]}, "all.parquet: found the columns words, n; needed: text"),
        ({"text": [1, 2]}, "all.parquet: row 0: column text: found 1; allowed: a string"),
        ({"text": ["a", None]}, "all.parquet: row 1: column text: found None; allowed: a string"),
        ({"text": ["only one document"]}, "all.parquet: the (train|validation|test) text is empty"),
    ]
    for columns, message in cases:
        pq.write_table(pa.table(columns), file)
        with pytest.raises(ValueError, match=message):
            prepare(tmp_path, source="all.parquet")
    pq.write_table(pa.table({"text": [str(i) * 1000 for i in range(300)]}), file, compression="gzip")
    content = bytearray(file.read_bytes())
    content[50:2000] = bytes(1950)  # the footer is whole, the data are not
    file.write_bytes(content)
    with pytest.raises(ValueError, match="all.parquet: not a readable Parquet file: [^\n]*$"):
        prepare(tmp_path, source="all.parquet")


def test_bad_settings_are_one_clear_line(study: Path, prepare: Prepare, tmp_path: Path) -> None:
    folder_with(tmp_path / "empty")
    folder_with(tmp_path / "broken", tokenizer_json="{}")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    folder_with(tmp_path / "words", tokenizer_json=words.to_str())
    cases: list[tuple[dict[str, Any], str]] = [
        ({"source": "/no/such"}, "prepare.source: /no/such: no such file or folder"),
        ({"source": "no.parquet"}, "prepare.source: .*no.parquet: no such file or folder"),
        ({"source": "../no/such/text"}, "prepare.source: .*such/text: no such file or folder"),
        ({"source": "corpus/test.txt"}, "prepare.source: .*test.txt: found a file; allowed: a folder, a .parquet file"),
        ({"tokenizer": "/no/such", "vocabulary": None}, "prepare.tokenizer: /no/such: no such file or folder"),
        (
            {"tokenizer": str(tmp_path / "empty"), "vocabulary": None},
            "empty: no tokenizer.json, and no vocab.json",
        ),
        ({"tokenizer": str(tmp_path / "broken"), "vocabulary": None}, "prepare.tokenizer: .*broken: "),
        ({"tokenizer": str(tmp_path / "words"), "vocabulary": None}, "words: found no token for a line end"),
        ({"test_tokens": 1}, "prepare.test_tokens: found 1; allowed: null, or at least [0-9]+, the text's first line"),
    ]
    for changes, message in cases:
        settings = SETTINGS.model_copy(update={"test_tokens": None} | changes)
        with pytest.raises(ValueError, match=message) as caught:
            prepare(**settings.model_dump())
        assert "\n" not in str(caught.value)


def test_a_hub_out_of_reach_is_one_clear_line(study: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from infinito import params, tasks\n"
        "for line in sys.stdin:\n"
        "    try: tasks.prepare(params.Text.model_validate_json(line), Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "    except ValueError as error: print(error)"
    )
    changes = [{"source": "no-such/text"}, {"tokenizer": "no-such/tokens", "vocabulary": None}]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out"), str(study)],
        input="".join(SETTINGS.model_copy(update=change).model_dump_json() + "\n" for change in changes),
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")},
        capture_output=True,
        text=True,
    )
    source, tokenizer = done.stdout.splitlines()
    assert source.startswith("prepare.source: 'no-such/text' can't be loaded from the hub: ")
    assert tokenizer.startswith("prepare.tokenizer: 'no-such/tokens', from the hub: ")
    assert not (tmp_path / "out").exists()
