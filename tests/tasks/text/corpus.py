"""A small corpus, how it is prepared, and what of it is scored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from infinito import params, tasks
from infinito.seeds import stream
from infinito.tasks import IGNORE

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

Prepare = Callable[..., Path]


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


def tokenizer_of(folder: Path) -> Any:
    import tokenizers

    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def scored(split: tasks.Split) -> list[int]:
    return split.targets[split.targets != IGNORE].tolist()
