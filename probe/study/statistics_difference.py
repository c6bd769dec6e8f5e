"""A paired difference, clustered by video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from probe.study.statistics_bootstrap import interval
from probe.study.statistics_permutation import sign_flips
from probe.study.statistics_result import Result, bracket, p_text, size
from probe.study.statistics_samples import Samples, samples


@dataclass(frozen=True)
class Difference(Result):
    """Mean of a minus b over paired samples.

    Attributes:
        mean: of a - b.
        low, high: bootstrap interval over clusters.
        p: two-sided, by exchange of a and b in whole clusters.
        exact: all exchanges were tried.
        effect: mean / standard deviation of the differences (Cohen's d_z); NaN where all are equal.
        error: standard error of the mean that knows of the clusters.
        mean_a, mean_b: of each side.
    """

    mean: float
    low: float
    high: float
    p: float
    exact: bool
    effect: float
    error: float
    mean_a: float
    mean_b: float
    n: int
    clusters: int
    level: float
    resamples: int
    seed: int

    def __str__(self) -> str:
        return f"{bracket(self.mean, self.low, self.high, '+')}, {p_text(self.p)}, {size(self)}"


def difference(
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    permutations: int = 9_999,
    seed: int = 0,
) -> Difference:
    """Mean of a - b, with a bootstrap interval over videos and a permutation test.

    Every sample counts the same, so that a video with more samples counts more. The test asks
    whether each video's differences are as likely with the other sign. Where all differences are
    equal there is nothing to resample: low and high are the mean.

    Args:
        a, b: one value a sample [sample], in the same order.
        clusters: the video of each sample [sample]; None: no two samples share one.
        level: of the interval.
        resamples: of the bootstrap.
        permutations: drawn where more than 14 videos differ; with fewer all are tried.
        seed: of both.

    Raises:
        ProbeError: unpaired lengths or indexes, values missing, no samples, one cluster.
    """
    s = samples("difference", clusters, a=a, b=b)
    left, right = s.columns
    d = left - right
    mean, low, high = mean_interval("difference", s, d, level, resamples, seed)
    p, exact = sign_flips(s.sums(d), permutations=permutations, seed=seed)
    spread = float(d.std(ddof=1)) if np.ptp(d) > 0 else 0.0
    return Difference(
        mean=mean,
        low=low,
        high=high,
        p=p,
        exact=exact,
        effect=mean / spread if spread else float("nan"),
        error=clustered_error(s, d),
        mean_a=float(left.mean()),
        mean_b=float(right.mean()),
        n=s.n,
        clusters=s.clusters,
        level=level,
        resamples=resamples,
        seed=seed,
    )


def mean_interval(
    what: str, s: Samples, values: np.ndarray, level: float, resamples: int, seed: int
) -> tuple[float, float, float]:
    """Mean over samples, low and high."""
    sums, sizes = s.sums(values), s.sizes

    def mean(weights: np.ndarray) -> np.ndarray:
        return (weights @ sums) / (weights @ sizes)

    return interval(
        what, mean, n=s.n, clusters=s.clusters, level=level, resamples=resamples, seed=seed
    )


def clustered_error(s: Samples, values: np.ndarray) -> float:
    """Standard error of the mean over samples when clusters are drawn: Taylor series for a ratio
    of sums, times G / (G - 1); with one sample a cluster the usual one.
    """
    away = s.sums(values - values.mean())
    return float(np.sqrt(s.clusters / (s.clusters - 1) * (away @ away)) / s.n)
