"""Grids drawn from the model of two crossed random factors, with known variances."""

import math

import numpy as np

NESTED = ("noise", "nondeterminism")


def grid(seed: int, shape: tuple[int, ...] = (6, 4, 3), variances=(1.0, 0.5, 0.2, 0.3)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    i, j, k = shape
    sd = np.sqrt(variances)
    init, data = sd[0] * rng.standard_normal((i, 1, 1)), sd[1] * rng.standard_normal((1, j, 1))
    return init + data + sd[2] * rng.standard_normal((i, j, 1)) + sd[3] * rng.standard_normal(shape)


def nested(seed: int, shape=(6, 5, 3, 2), variances=(1.0, 0.5, 0.3, 0.2, 0.1), grids=()) -> np.ndarray:
    """[*grids, I, J, noise seeds, reruns]."""
    rng = np.random.default_rng(seed)
    i, j, n, _ = shape
    sizes = ((i, 1, 1, 1), (1, j, 1, 1), (i, j, 1, 1), (i, j, n, 1), shape)
    return sum(math.sqrt(v) * rng.standard_normal((*grids, *size)) for v, size in zip(variances, sizes, strict=True))
