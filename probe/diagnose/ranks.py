"""Rank correlations that say NaN where there are no ranks."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

PAIRS = 1 << 20  # from here on the merge sort of scipy is cheaper than all pairs of values


def spearman(
    values: Float[np.ndarray, "*any value"], other: Shaped[np.ndarray, " value"]
) -> Float[np.ndarray, "*any"]:
    """Spearman's rank correlation of each row with another ranking, ties at mean ranks.

    NaN where a row or the other is constant, holds NaN, or has fewer than three values.
    """
    from scipy.stats import rankdata

    if values.shape[-1] < 3:
        return np.full(values.shape[:-1], np.nan)
    a, b = (rankdata(v, axis=-1, nan_policy="propagate") for v in (values, other))
    a, b = a - a.mean(-1, keepdims=True), b - b.mean()
    size = np.sqrt((a**2).sum(-1) * (b @ b))
    return np.divide(a @ b, size, out=np.full(np.shape(size), np.nan), where=size > 0)


def tau_b(values: Float[np.ndarray, "row value"]) -> Float[np.ndarray, "row row"]:
    """Kendall's tau-b, ties corrected, between rows; NaN where a row is constant.

    The signs of all differences of a row are a vector; tau-b is the cosine of two of them.
    """
    rows, count = values.shape
    if count**2 > PAIRS:
        return _sorted(values)
    signs = np.sign(values[:, :, None] - values[:, None, :]).reshape(rows, -1).astype(np.float32)
    both = (signs @ signs.T).astype(np.float64)  # whole numbers below 2 ** 24: exact
    size = np.sqrt(np.outer(np.diag(both), np.diag(both)))
    return np.divide(both, size, out=np.full_like(both, np.nan), where=size > 0)


def partial_tau(
    both: Float[np.ndarray, "row row"], fixed: Float[np.ndarray, " row"]
) -> Float[np.ndarray, "row row"]:
    """Kendall's partial tau between rows, with a third ranking held fixed (Kendall 1942).

    Args:
        both: tau between rows.
        fixed: tau of each row with the ranking that is held fixed.
    """
    left = np.sqrt(np.maximum(0, 1 - fixed**2))
    size = np.outer(left, left)
    rest = both - np.outer(fixed, fixed)
    return np.divide(rest, size, out=np.full_like(both, np.nan), where=size > 0)


def _sorted(values: np.ndarray) -> np.ndarray:
    from scipy.stats import kendalltau

    found = np.eye(len(values))
    for i in range(len(values)):
        for j in range(i):
            found[i, j] = found[j, i] = np.asarray(kendalltau(values[i], values[j]))[0]
        if np.ptp(values[i]) == 0:
            found[i, i] = np.nan
    return found
