"""Next-token prediction on any text.

What a text is: the rows of a split one after the other, a row being a line (.txt) or a document of one or more lines
(Parquet, the hub). A row that does not end with a line end gets one. Line ends of other systems (CR LF, CR) become LF,
and a byte order mark before a file or document goes; the manifest counts both under `changed`. Nothing else is added,
taken away or normalised.

Tokens: every line is tokenised alone, together with its line end, so no token spans two lines. Words: what stands
between white space, plus one for every line end. The word-level WikiText-2 then has 2,448,382 / 258,659 / 295,877
tokens of GPT-2 and 2,088,628 / 217,646 / 245,569 words (train / validation / test). The copy of it on the Hugging Face
hub may lack the blank that the original has on every empty line: then one byte and one token of GPT-2 less for each.

Every token of an evaluation text is scored exactly once. The first one has no predecessor and is given the last token
of the training text, which ends a line.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from infinito import params
from infinito.mistakes import one_line
from infinito.seeds import stream
from infinito.storage import file_sha256, read_table, sha256, write_table, write_text
from infinito.tasks import hub, overlap
from infinito.tasks.hub import local
from infinito.tasks.split import IGNORE, Split, identity, write_manifest
from infinito.tasks.tokens import Tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILES = {"train": ("train",), "validation": ("validation", "valid"), "test": ("test",)}
KINDS = (".txt", ".parquet")
# A document's own hash says which split of a single Parquet file it belongs to, so copies stay in one split.
SHARES = {"train": (0, 90), "validation": (90, 95), "test": (95, 100)}
BYTE_ORDER_MARK = "\ufeff"
AT_ONCE = 1000  # lines


@dataclass(frozen=True)
class Text:
    """Prepared text; see `infinito.tasks.Data`. An example is named by where it starts in the training text."""

    task: Tokens
    sha256: str
    text: Tensor  # the training text, int32 [1 + tokens]: the first one is only ever an input
    validation: Split
    test: Split

    def order(self, data_seed: int, steps: int, batch: int) -> Tensor:
        """Passes over the text, each cut into blocks at a fresh offset, in a fresh order: int64 [steps, batch]."""
        draws, starts = stream(data_seed, "order"), len(self.text) - self.task.length
        passes: list[np.ndarray] = []
        while sum(map(len, passes)) < steps * batch:
            offset = draws.integers(min(self.task.length, starts))
            passes.append(draws.permutation(np.arange(offset, starts, self.task.length, dtype=np.int64)))
        return torch.from_numpy(np.concatenate(passes)[: steps * batch].reshape(steps, batch))

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        window = self.text[rows[..., None] + torch.arange(self.task.length + 1, device=rows.device)].long()
        return window[..., :-1], window[..., 1:]

    def to(self, device: torch.device) -> "Text":
        return replace(
            self, text=self.text.to(device), validation=self.validation.to(device), test=self.test.to(device)
        )


def prepare(settings: params.Text, folder: Path, study: Path) -> None:
    """Write the three splits as token blocks, the tokenizer as tokenizer.json, and the manifest.

    Args:
        settings: the source is a folder with {train,validation,test}.{txt,parquet} (valid.* will do; in a subfolder
            named as `config` if there is one), a Parquet file with a column text, whose rows are split 90/5/5 by their
            hash, or a name on the hub. The tokenizer is "train" for a byte-level BPE of the training text, or a folder
            with tokenizer.json or with vocab.json and merges.txt, or a name on the hub.
        folder: where to write.
        study: where relative sources and tokenizers are; what exists there goes before the hub.

    Raises:
        ValueError: source or tokenizer is missing, corrupt or out of reach; a split is missing or empty; the training
            text is shorter than one block; an evaluation text is cut before the end of its first line;
            `tokenizers` is not installed, or `datasets` for a name on the hub.
    """
    if find_spec("tokenizers") is None:
        raise ValueError("prepare: text needs tokenizers; install infinito[lm]")
    source = _source(settings, study)
    lines, changed = {}, {}
    for split, rows in source.items():
        lines[split], changed[split] = _lines(rows)
    tokenizer = _tokenizer(settings, study, lines["train"])
    vocabulary = max(tokenizer.get_vocab().values()) + 1
    limits = {"train": None, "validation": settings.validation_tokens, "test": settings.test_tokens}
    counts: dict[str, dict[str, Any]] = {}
    last = 0
    for split, limit in limits.items():
        text = lines[split]
        tokens, ends = _encode(tokenizer, text)
        kept = len(text) if limit is None else int(np.searchsorted(ends, limit, side="right"))
        if not kept:
            raise ValueError(
                f"prepare.{split}_tokens: found {limit}; allowed: null, or at least {ends[0]}, the text's first line"
            )
        scored = int(ends[kept - 1])
        if split == "train":
            last = int(tokens[-1])
            if scored < settings.length:
                raise ValueError(f"prepare.length: found {settings.length}; the training text has only {scored} tokens")
        starts = np.append(np.arange(0, scored, settings.length, dtype=np.int32), np.int32(scored))
        values = tokens[:scored].astype(np.uint16 if vocabulary <= 2**16 else np.int32)
        write_table(folder / f"{split}.parquet", pa.table({"tokens": pa.ListArray.from_arrays(starts, values)}))
        counts[split] = {
            "tokens": len(tokens),
            "scored_tokens": scored,
            "words": sum(len(line.split()) + 1 for line in text[:kept]),
            "bytes": sum(len(line.encode()) for line in text[:kept]),
            "blocks": len(starts) - 1,
            "text_sha256": sha256("".join(text)),  # of all of it, like `tokens`; the others are of what is scored
        }
        lines[split] = text[:kept]
    found = overlap.of_texts(lines)
    overlap.check(found, "text", settings.overlap_allowed)
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
    write_manifest(
        folder,
        settings,
        counts,
        found,
        vocabulary=vocabulary,
        length=settings.length,
        causal=True,
        first_input=last,
        tokenizer_sha256=file_sha256(folder / "tokenizer.json"),
        changed=changed,
    )


def load(folder: Path, manifest: dict[str, Any]) -> Text:
    """Read what `prepare` wrote; evaluation texts become blocks that don't overlap, the last one filled up."""
    length, vocabulary = manifest["length"], manifest["vocabulary"]

    def text(split: str) -> Tensor:
        tokens = read_table(folder / f"{split}.parquet").column("tokens").combine_chunks().flatten().to_numpy()
        return torch.from_numpy(np.append(np.int32(manifest["first_input"]), tokens.astype(np.int32)))

    def blocks(split: str) -> Split:
        tokens, entry = text(split).long(), manifest["splits"][split]
        n = len(tokens) - 1
        inputs = torch.full((-(-n // length) * length,), int(tokens[0]))
        targets = torch.full_like(inputs, IGNORE)
        inputs[:n], targets[:n] = tokens[:-1], tokens[1:]
        return Split(
            inputs.view(-1, length),
            targets.view(-1, length),
            length * vocabulary,
            words=entry["words"],
            bytes=entry["bytes"],
        )

    return Text(
        task=Tokens(vocabulary, length, causal=True, exact=False),
        sha256=identity(manifest),
        text=text("train"),
        validation=blocks("validation"),
        test=blocks("test"),
    )


def _source(settings: params.Text, study: Path) -> dict[str, list[str]]:
    """The rows of every split."""
    path = local("source", settings.source, study, KINDS)
    if path is None:
        found = _from_hub(settings.source, settings.config)
    elif path.is_dir():
        found = {split: _from_files(files) for split, files in _split_files(path, settings.config).items()}
    elif path.suffix == ".parquet":
        found = _shares(_from_files([path]))
    else:
        raise ValueError(f"prepare.source: {path}: found a file; allowed: a folder, a .parquet file, a name on the hub")
    for split, rows in found.items():
        if not any(row.strip() for row in rows):
            raise ValueError(f"prepare.source: {path or settings.source}: the {split} text is empty")
    return found


def _shares(documents: Iterable[str]) -> dict[str, list[str]]:
    """90/5/5 % of the documents, each by the SHA-256 of its text."""
    found: dict[str, list[str]] = {split: [] for split in SHARES}
    for document in documents:
        share = int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big") % 100
        found[next(split for split, (low, high) in SHARES.items() if low <= share < high)].append(document)
    return found


def _split_files(folder: Path, config: str | None) -> dict[str, list[Path]]:
    """The files of every split; Parquet may come in numbered parts (train-00000-of-00002.parquet)."""
    if config is not None and (folder / config).is_dir():
        folder = folder / config
    found = {}
    for split, names in FILES.items():
        patterns = [f"{name}{parts}{kind}" for name in names for kind in KINDS for parts in ("", "-*-of-*")]
        found[split] = next(filter(None, (sorted(folder.glob(pattern)) for pattern in patterns)), [])
        if not found[split]:
            raise ValueError(f"prepare.source: {folder}: no {split} text; allowed: {', '.join(patterns)}")
    return found


def _from_files(files: Sequence[Path]) -> list[str]:
    return [row for file in files for row in (_rows if file.suffix == ".parquet" else _whole)(file)]


def _whole(file: Path) -> list[str]:
    """A text file, as one row."""
    try:  # as bytes: reading as text would change line ends without a word
        return [file.read_bytes().decode()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not readable as text: {one_line(error)}") from error


def _rows(file: Path) -> list[str]:
    """The rows of a Parquet file."""
    try:
        columns = pq.read_schema(file).names
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file}: not a readable Parquet file: {one_line(error)}") from error
    if "text" not in columns:
        raise ValueError(f"{file}: found the columns {', '.join(columns)}; needed: text")
    return _column(read_table(file, ["text"]).to_pydict(), str(file))


def _from_hub(name: str, config: str | None) -> dict[str, list[str]]:
    loaded, found = hub.load(name, config), {}
    for split in FILES:
        if split not in loaded:
            splits = ", ".join(map(str, loaded))
            raise ValueError(f"prepare.source: {name}: found the splits {splits}; needed: {', '.join(FILES)}")
        columns = loaded[split].column_names
        if "text" not in columns:
            raise ValueError(f"prepare.source: {name}: found the columns {', '.join(columns)}; needed: text")
        found[split] = _column(loaded[split].select_columns("text").to_dict(), f"{name}, {split}")
    return found


def _column(table: Mapping[str, list[Any]], where: str) -> list[str]:
    """The column text."""
    for number, row in enumerate(table["text"]):
        if not isinstance(row, str):
            raise ValueError(f"{where}: row {number}: column text: found {row!r}; allowed: a string")
    return table["text"]


def _lines(rows: Iterable[str]) -> tuple[list[str], dict[str, int]]:
    """All lines, each with its line end, and how often something in them was changed."""
    lines, changed = [], Counter[str]()
    for row in rows:
        if row.startswith(BYTE_ORDER_MARK):
            row = row.removeprefix(BYTE_ORDER_MARK)
            changed["byte_order_marks"] += 1
        if "\r" in row:
            changed["line_ends_crlf"] += row.count("\r\n")
            changed["line_ends_cr"] += row.count("\r") - row.count("\r\n")
            row = row.replace("\r\n", "\n").replace("\r", "\n")
        lines += [line + "\n" for line in row.removesuffix("\n").split("\n")]
    return lines, {what: count for what, count in changed.items() if count}


def _tokenizer(settings: params.Text, study: Path, lines: Sequence[str]) -> "Tokenizer":
    """The tokenizer that the settings name, or one trained on the lines."""
    import tokenizers

    name, vocabulary = settings.tokenizer, settings.vocabulary
    path = None if vocabulary else local("tokenizer", name, study, KINDS)
    try:
        if vocabulary:
            tokenizer = _byte_level(tokenizers.models.BPE())
            trainer = tokenizers.trainers.BpeTrainer(
                vocab_size=vocabulary,
                min_frequency=2,
                initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
                show_progress=False,
            )
            tokenizer.train_from_iterator(lines, trainer)
        elif path is None:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(name).backend_tokenizer
        elif (path / "tokenizer.json").is_file():
            tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
        elif (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
            model = tokenizers.models.BPE.from_file(str(path / "vocab.json"), str(path / "merges.txt"))
            tokenizer = _byte_level(model)
        else:
            raise FileNotFoundError("no tokenizer.json, and no vocab.json with merges.txt")
    except Exception as error:  # the Rust code raises bare exceptions, and the way to the hub any other
        where = path or f"{name!r}, from the hub"
        raise ValueError(f"prepare.tokenizer: {where}: {one_line(error)}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if not tokenizer.encode("\n", add_special_tokens=False).ids:
        raise ValueError(f"prepare.tokenizer: {path or name}: found no token for a line end; allowed: a byte-level BPE")
    return tokenizer


def _byte_level(model: Any) -> "Tokenizer":
    """A model in the frame of GPT-2: bytes as letters, and its pattern of words."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


def _encode(tokenizer: "Tokenizer", lines: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of all lines, int32 [N], and where each line ends in them, int64 [lines]."""
    parts, lengths = [], []
    for start in range(0, len(lines), AT_ONCE):
        encoded = tokenizer.encode_batch_fast(lines[start : start + AT_ONCE], add_special_tokens=False)
        ids = [encoding.ids for encoding in encoded]
        lengths += [len(line) for line in ids]
        parts.append(np.fromiter(itertools.chain.from_iterable(ids), np.int32))
    return np.concatenate(parts), np.cumsum(lengths)
