"""Splitting examples by their contents, so that equal examples are always in the same split."""

import hashlib
from collections.abc import Mapping

import numpy as np

from infinito.seeds import stream


def digests(inputs: np.ndarray) -> list[bytes]:
    """A hash of every example, [N, ...]."""
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in np.ascontiguousarray(inputs)]


def divided(inputs: np.ndarray, shares: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Which examples belong to every split: rows [n] each; what is in no share is `train`.

    An example's own hash, mixed with the seed, says where it belongs: more examples move none of the others. The sizes
    of the splits are therefore only about those asked for.

    Args:
        inputs: examples [N, ...].
        shares: of the splits beside train, between 0 and 1.
        seed: another one gives another split.
    """
    salt = stream(seed, "split").bytes(16)
    mixed = (hashlib.blake2b(digest, digest_size=8, salt=salt).digest() for digest in digests(inputs))
    place = np.array([int.from_bytes(digest, "big") / 2**64 for digest in mixed])
    found, low = {}, 0.0
    for split, share in shares.items():
        found[split] = np.flatnonzero((place >= low) & (place < low + share))
        low += share
    return {"train": np.flatnonzero(place >= low)} | found
