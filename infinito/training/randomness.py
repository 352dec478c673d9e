"""The global generators of torch, numpy and random: seeded from a named stream, and given back as they were.

The stacked engine draws by generators of its own. What a user's network draws besides, in its constructor or, in the
loop engine, in its forward pass, comes from the global ones.
"""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from infinito.seeds import DrawFrom, torch_stream


@contextlib.contextmanager
def borrowed() -> Iterator[None]:
    """Within this context the global generators may be seeded and used; afterwards they are as before."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
        if gpu is not None:
            torch.cuda.set_rng_state(gpu)


def seed_all(number: int) -> None:
    """Seed the global generators of torch (on all devices), numpy and random; number: 0 to 2^63 - 1."""
    torch.manual_seed(number)
    np.random.seed([number & 0xFFFFFFFF, number >> 32])
    random.seed(number)


def seed_all_from(seed: int, *names: str | int) -> None:
    """The same from a named stream (see `infinito.seeds`)."""
    seed_all(torch_stream(seed, *names).initial_seed())


def seed_step(key: Tensor) -> None:
    """The same for a step of a run; key: int32 [2] (see `seeds.noise_keys`)."""
    first, second = (int(word) & 0xFFFFFFFF for word in key)
    seed_all((first << 32 | second) >> 1)


@contextlib.contextmanager
def drawing(seed: int, *names: str | int) -> Iterator[None]:
    """Within this context everything is drawn from a named stream, by torch, numpy or random."""
    with borrowed(), DrawFrom(torch_stream(seed, *names)):
        seed_all_from(seed, *names)
        yield
