"""Text on real local files: what is scored, how it is counted, and in which blocks it is trained on."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from infinito import tasks
from infinito.storage import read_json
from infinito.tasks import IGNORE, text
from tests.tasks.text.corpus import CORPUS, Prepare, scored, tokenizer_of, written

pytest.importorskip("datasets")
pytest.importorskip("tokenizers")


def test_every_token_is_scored_once_and_gives_the_text_back(prepared: Path, data: text.Text) -> None:
    tokenizer = tokenizer_of(prepared)
    for name, split in (("validation", data.validation), ("test", data.test)):
        assert tokenizer.decode(scored(split)) == written(CORPUS[name])
        inputs, targets = split.inputs.flatten(), split.targets.flatten()
        n = len(scored(split))
        assert torch.equal(inputs[1:n], targets[: n - 1]) and bool((targets[n:] == IGNORE).all())
        assert split.inputs.shape == split.targets.shape == (-(-n // data.task.length), data.task.length)
        assert int(inputs[0]) == int(data.text[-1])
    assert tokenizer.decode(data.text[1:].tolist()) == written(CORPUS["train"])
    assert tokenizer.decode([int(data.text[0])]).endswith("\n")
    assert data.task.causal and data.task.vocabulary == tokenizer.get_vocab_size() == 300


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
