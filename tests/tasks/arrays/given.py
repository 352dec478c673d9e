"""Functions and tasks as a user's module has them."""

import numpy as np
from sklearn.utils import Bunch

DRAWS = np.random.default_rng(0)
X, Y = DRAWS.normal(2.0, 3.0, (200, 4)), DRAWS.integers(0, 3, 200)
number = 7


def pair() -> tuple[np.ndarray, np.ndarray]:
    return X, Y


def bunch() -> Bunch:
    return Bunch(data=X, target=Y, frame=None, feature_names=["a", "b", "c", "d"], DESCR="words")


def splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {"train": (X[:100], Y[:100]), "valid": (X[100:150], Y[100:150]), "test": (X[150:], Y[150:])}


def broken() -> None:
    raise RuntimeError("no\nluck")


def nothing() -> int:
    return 3
