"""Where text and tokenizers come from: files of many forms and the hub give the same bytes."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from infinito import tasks
from infinito.storage import read_json
from infinito.tasks import text
from tests.conftest import ROOT
from tests.tasks.text.corpus import CORPUS, FILES, SETTINGS, Prepare, scored, tokenizer_of, written

datasets = pytest.importorskip("datasets")
pytest.importorskip("tokenizers")


def test_preparing_twice_gives_the_same_bytes(study: Path, prepared: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from infinito import params, tasks;"
        "tasks.prepare(params.Text.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, SETTINGS.model_dump_json(), str(tmp_path), str(study)],
        env=os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (prepared / name).read_bytes(), name


def test_nothing_is_printed_sent_or_left_elsewhere(
    prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: asked.append(a) or [])
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    folder = prepare()
    assert asked == [] and not (tmp_path / "cache").exists() and not list((tmp_path / "scratch").iterdir())
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert tuple(capfd.readouterr()) == ("", "")


def test_text_and_parquet_lines_and_documents_are_the_same_text(
    prepared: Path, prepare: Prepare, tmp_path: Path
) -> None:
    """Rows with and without their line end, whole documents, several parts, odd names, a last line without an end."""
    folder = tmp_path / "odd [name]*" / "corpus" / "small"
    folder.mkdir(parents=True)
    train, half = CORPUS["train"], 200
    rows = [line + "\n" if i % 3 else line for i, line in enumerate(train[:half])]
    pq.write_table(pa.table({"id": range(half), "text": rows}), folder / "train-00000-of-00002.parquet")
    pq.write_table(
        pa.table({"text": [written(train[half:300]), "\n".join(train[300:])]}), folder / "train-00001-of-00002.parquet"
    )
    (folder / "validation.txt").write_text("\r\n".join(CORPUS["validation"]), encoding="utf-8", newline="")
    pq.write_table(pa.table({"text": pa.array(CORPUS["test"], pa.large_string())}), folder / "test.parquet")
    other = prepare(tmp_path / "odd [name]*", config="small")
    for name in FILES[:-1]:
        assert (other / name).read_bytes() == (prepared / name).read_bytes(), name


@pytest.mark.parametrize("kind", ["txt", "parquet"])
def test_line_ends_and_byte_order_marks_of_other_systems_are_put_right_and_counted(
    prepared: Path, prepare: Prepare, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "corpus").mkdir()
    train, validation, test = (CORPUS[name] for name in ("train", "validation", "test"))
    texts = {
        "train": "\ufeff" + "".join(line + end for line, end in zip(train, 200 * ["\r\n", "\n"], strict=True)),
        "validation": "\r".join(validation),
        "test": written(test),
    }
    for name, content in texts.items():
        if kind == "txt":
            (tmp_path / "corpus" / f"{name}.txt").write_bytes(content.encode())
        else:
            pq.write_table(pa.table({"text": [content]}), tmp_path / "corpus" / f"{name}.parquet")
    other = prepare(tmp_path)
    for name in FILES[:-1]:
        assert (other / name).read_bytes() == (prepared / name).read_bytes(), name
    changed = {
        "train": {"byte_order_marks": 1, "line_ends_crlf": 200},
        "validation": {"line_ends_cr": len(validation) - 1},
        "test": {},
    }
    assert read_json(other / "manifest.json")["changed"] == changed
    assert not any(read_json(prepared / "manifest.json")["changed"].values())
    assert tasks.load(other).sha256 == tasks.load(prepared).sha256


def test_a_single_parquet_file_is_split_by_the_hash_of_its_documents(prepare: Prepare, tmp_path: Path) -> None:
    documents = [f"document {i}\nsays {i * i} .\n" for i in range(2000)]
    pq.write_table(pa.table({"text": documents + documents[:100]}), tmp_path / "all.parquet")
    folder = prepare(tmp_path, source="all.parquet")
    loaded, tokenizer = tasks.load(folder), tokenizer_of(folder)
    assert isinstance(loaded, text.Text)
    texts = [loaded.text[1:].tolist(), scored(loaded.validation), scored(loaded.test)]
    parts = [tokenizer.decode(tokens).split("document ")[1:] for tokens in texts]
    assert sum(map(len, parts)) == 2100 and len(set().union(*parts)) == 2000
    assert not set(parts[0]) & set(parts[1]) | set(parts[0]) & set(parts[2]) | set(parts[1]) & set(parts[2])
    assert [len(set(part)) for part in parts] == pytest.approx([1800, 100, 100], abs=40)


def test_a_hub_name_is_loaded_by_the_hubs_client(
    study: Path, prepared: Path, prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client itself looks into the working folder first; so this is its own way, without a network."""
    repository = tmp_path / "some" / "corpus"
    repository.mkdir(parents=True)
    for name, lines in CORPUS.items():
        pq.write_table(pa.table({"text": [line + "\n" for line in lines]}), repository / f"{name}.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = prepare(source="some/corpus")
    for name in FILES[:-1]:
        assert (folder / name).read_bytes() == (prepared / name).read_bytes(), name
    (repository / "test.parquet").unlink()
    with pytest.raises(ValueError, match="some/corpus: found the splits train, validation; needed: train, "):
        prepare(source="some/corpus")
    pq.write_table(pa.table({"words": ["a"]}), repository / "test.parquet")
    with pytest.raises(ValueError, match="^prepare.source: [^\n]*$"):
        prepare(source="some/corpus")


def test_a_ready_made_tokenizer(
    prepared: Path, prepare: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tokenizer.json, as vocab.json and merges.txt, or by the hub's client: the same tokens."""
    (tmp_path / "json").mkdir()
    # neither padding nor truncation, if a file asks for them, may touch the text
    tokenizer = tokenizer_of(prepared)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "json" / "tokenizer.json"))
    (tmp_path / "gpt2").mkdir()
    tokenizer_of(prepared).model.save(str(tmp_path / "gpt2"))
    (tmp_path / "some" / "bpe").mkdir(parents=True)
    tokenizer_of(prepared).save(str(tmp_path / "some" / "bpe" / "tokenizer.json"))
    (tmp_path / "some" / "bpe" / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path / "json"), str(tmp_path / "gpt2"), "some/bpe"):
        folder = prepare(tokenizer=name, vocabulary=None)
        for file in FILES[:3]:
            assert (folder / file).read_bytes() == (prepared / file).read_bytes(), (name, file)
        assert read_json(folder / "manifest.json")["vocabulary"] == 300


def test_a_vocabulary_beyond_the_corpus_is_as_large_as_the_corpus_allows(prepare: Prepare) -> None:
    folder = prepare(vocabulary=60_000)
    found = tasks.load(folder).task.vocabulary
    assert 300 < found < 5000 and found == tokenizer_of(folder).get_vocab_size()


def test_every_vocabulary_survives_the_round_trip(prepared: Path, prepare: Prepare, tmp_path: Path) -> None:
    """Tokens beyond 16 bits too: the same text under the same merges, numbered from above."""
    content = json.loads((prepared / "tokenizer.json").read_text())
    content["model"]["vocab"] = {token: number + 70_000 for token, number in content["model"]["vocab"].items()}
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "tokenizer.json").write_text(json.dumps(content))
    small, large = tasks.load(prepared), tasks.load(prepare(tokenizer=str(tmp_path / "large"), vocabulary=None))
    assert large.task.vocabulary == 70_300
    assert torch.equal(small.test.inputs + 70_000, large.test.inputs)
    rows = small.order(1, 4, 4)
    assert torch.equal(small.batch(rows)[1] + 70_000, large.batch(rows)[1])


@pytest.mark.skipif("INFINITO_DATA" not in os.environ, reason="INFINITO_DATA: a folder with wikitext-2/ and gpt2-bpe/")
def test_wikitext_2_with_the_tokens_of_gpt_2(tmp_path: Path) -> None:
    folder = Path(os.environ["INFINITO_DATA"])
    changes = {"source": "Salesforce/wikitext", "config": "wikitext-2-v1", "tokenizer": str(folder / "gpt2-bpe")}
    settings = SETTINGS.model_copy(update=changes | {"vocabulary": None, "length": 256})
    (tmp_path / "Salesforce").mkdir()
    (tmp_path / "Salesforce" / "wikitext").symlink_to(folder / "wikitext-2")
    out = tmp_path / "out"
    out.mkdir()
    tasks.prepare(settings, out, tmp_path)
    manifest = read_json(out / "manifest.json")
    entries = [manifest["splits"][name] for name in ("train", "validation", "test")]
    assert [entry["scored_tokens"] for entry in entries] == [2_448_382, 258_659, 295_877]
    assert [entry["words"] for entry in entries] == [2_088_628, 217_646, 245_569]
    files = [folder / "wikitext-2" / f"{name}.txt" for name in ("train", "valid", "test")]
    assert [entry["bytes"] for entry in entries] == [file.stat().st_size for file in files]
    assert [e["text_sha256"] for e in entries] == [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert manifest["vocabulary"] == 50_257
