"""Intervals by a bootstrap over clusters.

Whole videos are drawn, not samples: answers about one video are alike, and a bootstrap over
samples is too sure of itself. The interval is BCa (bias-corrected and accelerated: Efron 1987;
DiCiccio and Efron 1996), since the statistics here are skewed and bounded (an AUROC near 1) or
biased (ECE), with its two levels widened for few clusters (Hesterberg 2015, "expanded": the normal
quantile z becomes t with G - 1 degrees of freedom times sqrt(G / (G - 1))), since a bootstrap over
G clusters is otherwise too narrow by about that much. Over simulated studies with unequal clusters
and normal, exponential and rare binary differences it covers 90 to 93 % with 8 videos, where the
percentile interval covers 82 to 89 %, and both cover 93 to 95 % with 200.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from probe.errors import ProbeError

Statistic = Callable[[np.ndarray], np.ndarray]
"""From how often each cluster counts [resample, cluster] to the statistic [resample]; NaN where
it is undefined."""

_CELLS = 2_000_000
"""Numbers held at once in an array over resamples and samples."""


def check(what: str, level: float, resamples: int) -> None:
    """Refuse a level or a number of resamples that makes no interval.

    Raises:
        ProbeError: it does not.
    """
    if not 0 < level < 1:
        raise ProbeError(f"{what}: level must lie between 0 and 1, not {level}")
    if resamples < 100:
        raise ProbeError(f"{what}: resamples must be 100 or more, not {resamples}")


def interval(
    what: str,
    statistic: Statistic,
    *,
    n: int,
    clusters: int,
    level: float,
    resamples: int,
    seed: int,
) -> tuple[float, float, float]:
    """A statistic with its bootstrap interval over clusters.

    Args:
        what: the statistic, named in errors.
        statistic: of weights of clusters.
        n: samples (bounds the memory).

    Returns:
        Value, low, high. Low and high are the value where every resample gives it.

    Raises:
        ProbeError: the statistic is undefined on more than a twentieth of the resamples.
    """
    from scipy.special import ndtri

    check(what, level, resamples)
    value = float(statistic(np.ones((1, clusters)))[0])
    drawn = resampled(statistic, n=n, clusters=clusters, resamples=resamples, seed=seed)
    rows = _rows(n, clusters)
    left_out = np.concatenate([statistic(w) for w in _all_but_one(clusters, rows)])
    undefined = int(np.isnan(drawn).sum())
    if undefined > resamples / 20 or np.isnan(left_out).any():
        raise ProbeError(
            f"{what}: undefined on {undefined} of {resamples} resamples of the {clusters} videos: "
            "too few videos hold each class; add samples"
        )
    drawn = drawn[~np.isnan(drawn)]
    gap = drawn - value
    gap[np.abs(gap) <= 1e-12 * max(1.0, abs(value))] = 0.0
    if not gap.any():
        return value, value, value
    below = (np.mean(gap < 0) + np.mean(gap <= 0)) / 2
    bias = float(ndtri(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn))))
    away = left_out.mean() - left_out
    spread = float(away @ away)
    bend = float((away**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    far = reach(level, clusters)
    levels = [_level(bias, bend, side * far) for side in (-1, 1)]
    low, high = np.quantile(drawn, levels)
    return value, float(low), float(high)


def resampled(
    statistic: Statistic, *, n: int, clusters: int, resamples: int, seed: int
) -> Float[np.ndarray, " resample"]:
    """A statistic on each resample of the clusters, which the seed alone decides."""
    rows = _rows(n, clusters)
    return np.concatenate([statistic(w) for w in _draws(clusters, resamples, seed, rows)])


def reach(level: float, clusters: int) -> float:
    """Standard errors to each side, of a bootstrap's own, which is short of clusters."""
    from scipy.special import stdtrit

    return float(stdtrit(clusters - 1, (1 + level) / 2) * np.sqrt(clusters / (clusters - 1)))


def _rows(n: int, clusters: int) -> int:
    return max(1, _CELLS // max(n, clusters))


def _level(bias: float, bend: float, z: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(bias + (bias + z) / max(1 - bend * (bias + z), 1e-9)))


def _draws(
    clusters: int, resamples: int, seed: int, rows: int
) -> Iterator[Float[np.ndarray, "resample cluster"]]:
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = rng.integers(clusters, size=(count, clusters))
        drawn += np.arange(count)[:, None] * clusters
        weights = np.bincount(drawn.ravel(), minlength=count * clusters)
        yield weights.reshape(count, clusters).astype(float)


def _all_but_one(clusters: int, rows: int) -> Iterator[Float[np.ndarray, "resample cluster"]]:
    for start in range(0, clusters, rows):
        out = np.arange(start, min(start + rows, clusters))
        weights = np.ones((len(out), clusters))
        weights[np.arange(len(out)), out] = 0.0
        yield weights
