"""Text on real local files: what is scored, how it is counted, and what is refused."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from infinito import engine, networks, params, tasks
from infinito.noise import keyed
from infinito.params import load_study
from infinito.runs import RunTable
from infinito.seeds import stream
from infinito.stages import STAGES
from infinito.storage import read_json
from infinito.tasks import IGNORE, text
from tests.conftest import in_process

datasets = pytest.importorskip("datasets")
tokenizers = pytest.importorskip("tokenizers")

SETTINGS = params.Text(
    task="text",
    source="corpus",
    config=None,
    tokenizer="train",
    vocabulary=300,
    length=16,
    validation_tokens=None,
    test_tokens=None,
)
WORDS = "the ring of a café — sings , naïve and 12 @-@ fold <unk> . \u00a0 日本".split(" ")
FILES = ("train.parquet", "validation.parquet", "test.parquet", "tokenizer.json", "manifest.json")


def sentences(name: str, n: int) -> list[str]:
    """Lines without their ends; every seventh is empty but for a blank, some have blanks at both ends."""
    draws = stream(0, "test", name)
    return [
        " " if i % 7 == 0 else f" {' '.join(draws.choice(WORDS, draws.integers(3, 30)))}{' ' * int(draws.integers(2))}"
        for i in range(n)
    ]


CORPUS = {name: sentences(name, n) for name, n in (("train", 400), ("validation", 40), ("test", 50))}


def written(lines: list[str]) -> str:
    return "".join(line + "\n" for line in lines)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "corpus").mkdir()
    for name, lines in CORPUS.items():
        file = "valid" if name == "validation" else name
        (folder / "corpus" / f"{file}.txt").write_text(written(lines), encoding="utf-8", newline="")
    return folder


Prepare = Callable[..., Path]


@pytest.fixture
def prepare(study: Path, tmp_path: Path) -> Prepare:
    """Prepares the corpus, with some settings changed, in a fresh folder."""

    def run(where: Path = study, **changes: Any) -> Path:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        tasks.prepare(SETTINGS.model_copy(update=changes), folder, where)
        return folder

    return run


@pytest.fixture(scope="module")
def prepared(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    tasks.prepare(SETTINGS, folder, study)
    return folder


@pytest.fixture(scope="module")
def data(prepared: Path) -> text.Text:
    loaded = tasks.load(prepared)
    assert isinstance(loaded, text.Text)
    return loaded


def tokenizer_of(folder: Path) -> Any:
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def scored(split: tasks.Split) -> list[int]:
    return split.targets[split.targets != IGNORE].tolist()


def test_every_token_is_scored_once_and_gives_the_text_back(prepared: Path, data: text.Text) -> None:
    tokenizer = tokenizer_of(prepared)
    for name, split in (("validation", data.validation), ("test", data.test)):
        assert tokenizer.decode(scored(split)) == written(CORPUS[name])
        inputs, targets = split.inputs.flatten(), split.targets.flatten()
        n = len(scored(split))
        assert torch.equal(inputs[1:n], targets[: n - 1]) and bool((targets[n:] == IGNORE).all())
        assert split.inputs.shape == split.targets.shape == (-(-n // data.length), data.length)
        assert int(inputs[0]) == int(data.text[-1])
    assert tokenizer.decode(data.text[1:].tolist()) == written(CORPUS["train"])
    assert tokenizer.decode([int(data.text[0])]).endswith("\n")
    assert data.causal and data.vocabulary == tokenizer.get_vocab_size() == 300


def test_no_token_spans_two_lines(prepared: Path, data: text.Text) -> None:
    tokenizer = tokenizer_of(prepared)
    alone = [tokenizer.encode(line + "\n").ids for line in CORPUS["test"]]
    assert scored(data.test) == [token for line in alone for token in line]


def test_words_and_bytes_are_those_of_the_scored_text(prepared: Path, data: text.Text, prepare: Prepare) -> None:
    entries = read_json(prepared / "manifest.json")["splits"]
    for name, lines in CORPUS.items():
        words = sum(len(line.split()) for line in lines) + len(lines)
        assert (entries[name]["words"], entries[name]["bytes"]) == (words, len(written(lines).encode()))
        assert entries[name]["text_sha256"] == hashlib.sha256(written(lines).encode()).hexdigest()
    assert entries["train"]["tokens"] == entries["train"]["scored_tokens"] == len(data.text) - 1
    assert (data.test.words, data.test.bytes) == (entries["test"]["words"], entries["test"]["bytes"])

    cut = prepare(validation_tokens=100, test_tokens=10**9)
    entry, split = read_json(cut / "manifest.json")["splits"]["validation"], tasks.load(cut).validation
    kept = tokenizer_of(cut).decode(scored(split))
    following = CORPUS["validation"][kept.count("\n")] + "\n"
    assert written(CORPUS["validation"]).startswith(kept) and kept.endswith("\n")
    assert len(scored(split)) <= 100 < len(scored(split)) + len(tokenizer_of(cut).encode(following).ids)
    assert (split.words, split.bytes) == (len(kept.split()) + kept.count("\n"), len(kept.encode()))
    assert entry["scored_tokens"] == len(scored(split)) and entry["blocks"] == len(split.inputs)
    assert entry["tokens"] == entries["validation"]["tokens"]
    assert (cut / "test.parquet").read_bytes() == (prepared / "test.parquet").read_bytes()
    exactly = prepare(validation_tokens=len(scored(split)))
    assert (exactly / "validation.parquet").read_bytes() == (cut / "validation.parquet").read_bytes()


def test_training_blocks_are_windows_and_targets_the_inputs_shifted_by_one(data: text.Text) -> None:
    rows = data.order(1, 30, 8)
    inputs, targets = data.batch(rows)
    assert inputs.shape == targets.shape == (30, 8, 16) and inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs[..., 1:], targets[..., :-1])
    for row, x, y in zip(rows.flatten().tolist(), inputs.flatten(0, 1), targets.flatten(0, 1), strict=True):
        assert torch.equal(data.text[row : row + 16].long(), x) and torch.equal(data.text[row + 1 : row + 17].long(), y)


def test_the_data_seed_chooses_offset_and_order(data: text.Text) -> None:
    a, again, b = data.order(1, 400, 8), data.order(1, 400, 8), data.order(2, 400, 8)
    assert torch.equal(a, again) and not torch.equal(a, b)
    assert torch.equal(data.order(1, 10, 8), a[:10])
    assert len({int(data.order(seed, 1, 1)) % 16 for seed in range(40)}) > 10
    flat, tokens = a.flatten().numpy(), len(data.text) - 1
    assert flat.min() >= 0 and flat.max() + 16 <= tokens
    offset = int(flat[0]) % 16
    blocks = (tokens - offset) // 16
    whole = flat[:blocks]  # every block of a pass once, in another order than the text's, before the next offset
    assert sorted(whole) == list(range(offset, offset + 16 * blocks, 16)) and not np.array_equal(whole, np.sort(whole))
    assert len(set(flat % 16)) > 1


def test_a_text_of_one_block_is_enough(study: Path, prepared: Path, prepare: Prepare) -> None:
    tokens = read_json(prepared / "manifest.json")["splits"]["train"]["tokens"]
    assert tasks.load(prepare(length=tokens)).order(5, 2, 3).tolist() == [[0, 0, 0], [0, 0, 0]]
    with pytest.raises(ValueError, match=f"prepare.length: found {tokens + 1}; the training text has only {tokens}"):
        prepare(length=tokens + 1)


def test_preparing_twice_gives_the_same_bytes(study: Path, prepared: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from infinito import params, tasks;"
        "tasks.prepare(params.Text.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, SETTINGS.model_dump_json(), str(tmp_path), str(study)],
        env=os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(root), "TOKENIZERS_PARALLELISM": "false"},
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
    found = tasks.load(folder).vocabulary
    assert 300 < found < 5000 and found == tokenizer_of(folder).get_vocab_size()


def test_every_vocabulary_survives_the_round_trip(prepared: Path, prepare: Prepare, tmp_path: Path) -> None:
    """Tokens beyond 16 bits too: the same text under the same merges, numbered from above."""
    content = json.loads((prepared / "tokenizer.json").read_text())
    content["model"]["vocab"] = {token: number + 70_000 for token, number in content["model"]["vocab"].items()}
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "tokenizer.json").write_text(json.dumps(content))
    small, large = tasks.load(prepared), tasks.load(prepare(tokenizer=str(tmp_path / "large"), vocabulary=None))
    assert large.vocabulary == 70_300
    assert torch.equal(small.test.inputs + 70_000, large.test.inputs)
    rows = small.order(1, 4, 4)
    assert torch.equal(small.batch(rows)[1] + 70_000, large.batch(rows)[1])


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
    with pytest.raises(ValueError, match="all.parquet: not readable as parquet: [^\n]*$"):
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
        env=os.environ
        | {"PYTHONPATH": str(Path(__file__).parent.parent), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")},
        capture_output=True,
        text=True,
    )
    source, tokenizer = done.stdout.splitlines()
    assert source.startswith("prepare.source: 'no-such/text' can't be loaded from the hub: ")
    assert tokenizer.startswith("prepare.tokenizer: 'no-such/tokens', from the hub: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_no_logit_depends_on_a_later_token(name: str, training: bool, data: text.Text) -> None:
    """In training too, where the same noise falls on both texts."""
    torch.manual_seed(0)
    network = networks.build(
        name, vocabulary=data.vocabulary, width=16, layers=2, heads=2, length=16, causal=data.causal, dropout=0.3
    )
    network = keyed(network).train(training)
    inputs, _ = data.batch(data.order(1, 1, 4)[0])
    for changed in (1, 8, 15):
        other = inputs.clone()
        other[:, changed:] = (other[:, changed:] + 7) % data.vocabulary
        with torch.no_grad():
            logits, others = network(inputs), network(other)
        assert torch.equal(logits[:, :changed], others[:, :changed])
        assert not torch.allclose(logits[:, changed:], others[:, changed:])


def test_the_engine_learns_it(data: text.Text) -> None:
    program = engine.Program(
        lambda: networks.build(
            "transformer", vocabulary=300, width=16, layers=1, heads=2, length=16, causal=True, dropout=0.1
        ),
        compile=False,
    )
    settings = engine.Settings(
        steps=60,
        batch=8,
        learning_rate=0.02,
        warmup=5,
        schedule="cosine",
        weight_decay=0.0,
        clip_norm=1.0,
        curve_every=60,
    )
    trained = engine.train(program, data, settings, [1, 2], [1, 2], [1, 2])
    assert trained.test.loss.max() < 0.75 * np.log(300)
    assert trained.test.tokens.sum() == len(scored(data.test))


def test_the_verdict_states_perplexities_and_bits_of_the_same_nats(
    study: Path, write_study: Callable[..., Path]
) -> None:
    prepare = SETTINGS.model_dump() | {"source": str(study / "corpus"), "test_tokens": 200}
    folder = write_study({"prepare": prepare, "train.pairs": 4})
    for stage in ("prepare", "train", "compare"):
        STAGES[stage](load_study(folder), in_process)
    entry = read_json(folder / "data/prepared/manifest.json")["splits"]["test"]
    scores = read_json(folder / "results/compare.json")["scores"]
    table = RunTable.load(folder / "models/runs")
    for arm, runs in zip(("candidate", "baseline"), table.pairs(), strict=True):
        nats = runs["test_loss"].mean() * entry["scored_tokens"]
        assert scores[arm]["test_perplexity_per_token"]["value"] == pytest.approx(np.exp(runs["test_loss"].mean()))
        assert scores[arm]["test_perplexity_per_word"]["value"] == pytest.approx(np.exp(nats / entry["words"]))
        assert scores[arm]["test_bits_per_byte"]["value"] == pytest.approx(nats / np.log(2) / entry["bytes"])
    assert table.items(list(runs["run_id"]))[1].sum() == entry["scored_tokens"] <= 200


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
