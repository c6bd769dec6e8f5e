"""Rank correlation with an interval over videos."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from probe.errors import ProbeError
from probe.study.statistics_bootstrap import Statistic, interval
from probe.study.statistics_result import Estimate
from probe.study.statistics_samples import samples


def spearman(
    x: ArrayLike,
    y: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Estimate:
    """Spearman's rank correlation over samples, bootstrap over videos; ties have mean ranks.

    Args:
        x, y: one value a sample [sample], in the same order.
        clusters: the video of each sample [sample]; None: no two samples share one.

    Raises:
        ProbeError: x or y all equal, or as in `difference`.
    """
    s = samples("spearman", clusters, x=x, y=y)
    for name, values in zip("xy", s.columns, strict=True):
        if np.ptp(values) == 0:
            raise ProbeError(f"spearman: all {s.n} values of {name} are equal: they have no ranks")
    kernel = _kernel(s.columns[0], s.columns[1], s.cluster)
    value, low, high = interval(
        "spearman",
        kernel,
        n=s.n,
        clusters=s.clusters,
        level=level,
        resamples=resamples,
        seed=seed,
    )
    return Estimate("Spearman", value, low, high, s.n, s.clusters, 0.0, level)


def _kernel(x: np.ndarray, y: np.ndarray, cluster: np.ndarray) -> Statistic:
    """Correlation of the ranks that samples have when each counts as often as its cluster."""
    ranks_of_x, ranks_of_y = _ranks(x), _ranks(y)

    def kernel(weights: np.ndarray) -> np.ndarray:
        weights = weights[:, cluster]
        total = weights.sum(axis=1, keepdims=True)
        # The mean rank of the samples of a resample is half their number, whatever the ties.
        away_x = ranks_of_x(weights) - total / 2
        away_y = ranks_of_y(weights) - total / 2
        weighted = weights * away_x
        both = np.einsum("rn,rn->r", weighted, away_y)
        of_x = np.einsum("rn,rn->r", weighted, away_x)
        of_y = np.einsum("rn,rn,rn->r", weights, away_y, away_y)
        scale = np.sqrt(of_x * of_y)
        return np.divide(both, scale, out=np.full(len(scale), np.nan), where=scale > 0)

    return kernel


def _ranks(values: np.ndarray) -> Statistic:
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=np.nan) != 0)
    place = np.unique(values, return_inverse=True)[1]

    def ranks(weights: np.ndarray) -> np.ndarray:
        held = np.add.reduceat(weights[:, order], starts, axis=1)
        # Halfway through the tied ones: ranks less one half.
        return (np.cumsum(held, axis=1) - held / 2)[:, place]

    return ranks
