"""Differences over the folds of a cross-validation or over random splits: they share training examples.

So they are not independent, and the plain t-test of them is too sure.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from infinito.statistics.paired import TTest, paired_t, ratio_to_error


def resampled_t(d: ArrayLike, test_to_train: float, alpha: float = 0.05) -> TTest:
    """Corrected resampled t-test and its confidence interval (Nadeau & Bengio 2003).

    The variance of the mean of n differences is taken as that of a difference times 1 / n + test_to_train, the latter
    for the correlation of splits that share training examples.

    Args:
        d: differences [..., n], n >= 2, one per split, positive = candidate better.
        test_to_train: test examples / training examples of a split, > 0.
        alpha: 1 - confidence.

    Returns:
        TTest of arrays [...]; sd is that of the differences. Identical differences: p = 1 if they are 0, else p = 0.

    Raises:
        ValueError: fewer than 2 differences, or a ratio that is not positive.
    """
    d = np.asarray(d, float)
    n = d.shape[-1] if d.ndim else 1
    if n < 2:
        raise ValueError(f"found {n} differences: at least 2 needed")
    if not 0 < test_to_train < math.inf:
        raise ValueError(f"found {test_to_train} test examples per training example: a positive number needed")
    plain = paired_t(np.sort(d, axis=-1), alpha)  # sorted, sums have the same bits in any order of the folds
    se = plain.sd * math.sqrt(1 / n + test_to_train)
    t = ratio_to_error(plain.mean, se)
    reach = stats.t.isf(alpha / 2, plain.df) * se
    p = 2 * stats.t.sf(np.abs(t), plain.df)
    return TTest(plain.mean, plain.sd, t, plain.df, p, plain.mean - reach, plain.mean + reach)


def corrected_t(d: ArrayLike, folds: int, alpha: float = 0.05) -> TTest:
    """`resampled_t` of a cross-validation: a test set is 1 / (folds - 1) of its training set.

    Args:
        d: differences [..., n], n >= 2, of the folds that both arms finished.
        folds: folds of the experiment, finished or not: the training sets of the others are what they are.

    Raises:
        ValueError: fewer than 2 differences, or more than folds.
    """
    n = np.shape(d)[-1] if np.ndim(d) else 1
    if not 2 <= n <= folds:
        raise ValueError(f"found {n} differences over {folds} folds: at least 2 needed, and no more than folds")
    return resampled_t(d, 1 / (folds - 1), alpha)
