"""How much of validation and test stands in the splits before them too: what a network has seen is no test of it."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from infinito.tasks.shares import digests

WINDOW = 13  # words, as Brown et al. 2020 take them to look for test texts in a training text
LARGEST = 0.01  # share that is no reason to refuse: natural texts have headings and quotations in common

Overlap = dict[str, dict[str, float]]  # for a split, the share of it that stands in each one before it


def of_examples(inputs: Mapping[str, np.ndarray]) -> Overlap:
    """Shares of the examples whose inputs, [N, ...] of every split, are exactly those of an example before."""
    hashes = {split: digests(values) for split, values in inputs.items()}
    known = {split: set(found) for split, found in hashes.items()}
    return _of(list(inputs), lambda split, before: sum(x in known[before] for x in hashes[split]) / len(hashes[split]))


def of_texts(lines: Mapping[str, Sequence[str]]) -> Overlap:
    """Shares of the letters that stand in a line of the text before, or in 13 words that follow one another there:
    whichever is more. White space does not count, so it may differ."""
    words = {split: [line.split() for line in text] for split, text in lines.items()}
    whole = {split: {tuple(line) for line in text} for split, text in words.items()}
    letters = {split: np.array([len(word) for line in text for word in line], int) for split, text in words.items()}
    windows = {split: _windows([word for line in text for word in line]) for split, text in words.items()}

    def share(split: str, before: str) -> float:
        of_line = np.array([tuple(line) in whole[before] for line in words[split] for _ in line], bool)
        of_window = np.zeros(len(of_line), bool)
        for start in np.flatnonzero(np.isin(windows[split], windows[before])):
            of_window[start : start + WINDOW] = True
        return max(float(letters[split][found].sum() / letters[split].sum()) for found in (of_line, of_window))

    return _of(list(lines), share)


def check(found: Overlap, what: str, allowed: bool) -> None:
    """Raises ValueError where more of a split than `LARGEST` stands in one before, unless that is allowed.

    what: the examples are called, in the plural.
    """
    for split, shares in found.items():
        for before, share in shares.items():
            if share > LARGEST and not allowed:
                raise ValueError(
                    f"prepare: found {100 * share:.3g} % of the {split} {what} in {before} too; allowed: at most "
                    f"{100 * LARGEST:g} %, or prepare.overlap_allowed: true, with which the report says it"
                )


def _of(splits: Sequence[str], share: Callable[[str, str], float]) -> Overlap:
    return {split: {before: share(split, before) for before in splits[:i]} for i, split in enumerate(splits) if i}


def _windows(words: Sequence[str]) -> np.ndarray:
    """A hash of every run of WINDOW words, uint64 [words - WINDOW + 1]."""
    hashes = pd.util.hash_array(np.array(words, object)) if words else np.zeros(0, np.uint64)
    n = max(0, len(hashes) - WINDOW + 1)
    mixed = np.zeros(n, np.uint64)
    for place in range(WINDOW):
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + hashes[place : place + n]
    return mixed
