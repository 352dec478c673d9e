"""Seeds and named random streams.

Every draw comes from a named stream of a named seed; streams are derived by hashing their names, so no two of them
are related by arithmetic. Nothing here or elsewhere touches a global generator.

Pools are disjoint by construction: the pool's number is part of the seed. With root 0, pair 7 has the seed 1000007.
"""

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

POOLS = ("pairs", "grid", "confirm", "controls", "ensemble", "pilot", "noise")
POOL_SIZE = 1_000_000


def pool(root: int, name: str, n: int) -> list[int]:
    """The first n seeds of a pool.

    Raises:
        ValueError: more than a million seeds asked of one pool.
    """
    if n > POOL_SIZE:
        raise ValueError(f"pool {name}: {n} seeds asked; a pool has {POOL_SIZE}")
    start = (root * (len(POOLS) + 1) + POOLS.index(name) + 1) * POOL_SIZE
    return list(range(start, start + n))


def _key(seed: int, *names: str | int) -> bytes:
    return hashlib.sha256("\x1f".join(map(str, (seed, *names))).encode()).digest()


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """The generator of a named stream: counter-based Philox, keyed by the hash of (seed, names)."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_key(seed, *names)[:16], "little")))


def torch_stream(seed: int, *names: str | int) -> torch.Generator:
    """The same for torch, on the CPU."""
    return torch.Generator().manual_seed(int.from_bytes(_key(seed, *names)[:8], "little") >> 1)


def noise_keys(seed: int, steps: int) -> Tensor:
    """The keys of a run's dropout and exploration noise, int32 [steps, 2] (see `infinito.operations.noise`)."""
    draws = stream(seed, "noise").integers(-(2**31), 2**31, size=(steps, 2), dtype=np.int32)
    return torch.from_numpy(draws)


class DrawFrom(TorchDispatchMode):
    """Within this context every random tensor operation draws from `generator` instead of the global one.

    So a network that initialises itself the usual way, in its constructor, is seeded without knowing it. An operation
    that takes no generator draws from the global one.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        takes = [a.name for a in func._schema.arguments]
        if torch.Tag.nondeterministic_seeded in func.tags:
            if "generator" not in takes:  # randn, rand, randint, randperm: the overload with a generator is another one
                overload = {"default": "generator", "low": "low_generator"}.get(func._overloadname)
                if overload is None or not hasattr(func.overloadpacket, overload):
                    return func(*args, **kwargs)
                func = getattr(func.overloadpacket, overload)
            place = [a.name for a in func._schema.arguments].index("generator")
            if place < len(args):  # rrelu passes it by its place
                args = (*args[:place], args[place] or self.generator, *args[place + 1 :])
            elif kwargs.get("generator") is None:
                kwargs["generator"] = self.generator
        return func(*args, **kwargs)
