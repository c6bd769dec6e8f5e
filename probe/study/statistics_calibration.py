"""Does confidence say how often an answer is right?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from probe.errors import ProbeError
from probe.study.statistics_bootstrap import Statistic, check, interval, reach, resampled
from probe.study.statistics_result import Estimate, Result
from probe.study.statistics_samples import Samples, classes, samples

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Bin(Result):
    """Samples of like confidence: mean confidence and share of right answers."""

    confidence: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class Calibration(Result):
    """How well confidence is calibrated, and how well it ranks.

    Attributes:
        ece: expected calibration error over bins of equal mass; its chance is what a perfectly
            calibrated confidence gets with as many independent samples, which is above 0.
        brier: mean squared error of confidence; chance is that of always saying the accuracy.
        area: under the risk-coverage curve; chance is the error rate.
        bins: of the reliability diagram.
    """

    ece: Estimate
    brier: Estimate
    area: Estimate
    bins: tuple[Bin, ...]

    def __str__(self) -> str:
        return f"{self.ece} (calibrated: {self.ece.chance:.3g}); {self.brier}; {self.area}"


def calibration(
    confidence: ArrayLike,
    right: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    bins: int = 10,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Calibration:
    """Expected calibration error, Brier score and area under the risk-coverage curve.

    Bins have equal mass, equal confidences stay together, and the bins stay in the resamples.

    Args:
        confidence: probability of being right [sample].
        right: 0 or 1 [sample].
        clusters: the video of each sample [sample]; None: no two samples share one.
        bins: of the calibration error.

    Raises:
        ProbeError: confidences outside 0 to 1, fewer samples than bins, or as in `accuracy`.
    """
    what = "calibration"
    s = samples(what, clusters, confidence=confidence, right=right)
    sure, hit = s.columns
    classes(what, "right", hit)
    odd = int(((sure < 0) | (sure > 1)).sum())
    if odd:
        raise ProbeError(f"{what}: {odd} of {s.n} confidences are not between 0 and 1")
    if not 1 <= bins <= s.n:
        raise ProbeError(f"{what}: {bins} bins for {s.n} samples: give 1 to {s.n}")
    number = _bins(sure, bins)
    error = 1 - float(hit.mean())
    how = {"s": s, "level": level, "resamples": resamples, "seed": seed}
    return Calibration(
        ece=_ece(sure, hit, number, **how),
        brier=_estimate("Brier", _mean((sure - hit) ** 2, s), error * (1 - error), **how),
        area=_estimate("risk-coverage area", _area(sure, hit, s), error, **how),
        bins=tuple(
            Bin(float(sure[at].mean()), float(hit[at].mean()), int(at.sum()))
            for at in (number == k for k in range(number.max() + 1))
        ),
    )


def risk_coverage(confidence: ArrayLike, right: ArrayLike) -> pd.DataFrame:
    """Error rate among the answers of at least each confidence.

    Args:
        confidence: higher where surer, on any scale [sample].
        right: 0 or 1 [sample].

    Returns:
        threshold (falling), coverage (share of samples answered), risk.

    Raises:
        ProbeError: as in `accuracy`.
    """
    import pandas as pd

    s = samples("risk_coverage", None, confidence=confidence, right=right)
    sure, hit = s.columns
    classes("risk_coverage", "right", hit)
    order, starts = _falling(sure)
    wrong = np.cumsum(np.add.reduceat(1 - hit[order], starts))
    seen = np.append(starts[1:], s.n)
    return pd.DataFrame(
        {"threshold": sure[order][starts], "coverage": seen / s.n, "risk": wrong / seen}
    )


def _bins(sure: np.ndarray, count: int) -> np.ndarray:
    """Number of the bin of each sample; bins that ties leave empty are not numbered."""
    edges = np.quantile(sure, np.arange(1, count) / count)
    return np.unique(np.searchsorted(edges, sure), return_inverse=True)[1]


def _falling(sure: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order by falling confidence, and where each confidence starts in it."""
    order = np.argsort(-sure, kind="stable")
    return order, np.flatnonzero(np.diff(sure[order], prepend=np.nan) != 0)


def _ece(
    sure: np.ndarray,
    hit: np.ndarray,
    number: np.ndarray,
    *,
    s: Samples,
    level: float,
    resamples: int,
    seed: int,
) -> Estimate:
    """The calibration error, with an interval that holds where it is near 0 too.

    A sum of absolute values is biased upwards, in a resample more so, and a bootstrap interval of
    it misses a calibrated model nearly always. The low end is what the deviation of all bins'
    errors from those found, summed without sign, leaves of it (triangle inequality); the high end
    is normal, less the bias. Covers 95 % or more over simulated studies, calibrated or not.
    """
    from scipy.stats import norm

    check("ECE", level, resamples)
    gaps = np.stack([s.sums((hit - sure) * (number == k)) for k in range(number.max() + 1)], 1)
    found = gaps.sum(axis=0) / s.n
    value = float(np.abs(found).sum())

    def error(weights: np.ndarray) -> np.ndarray:
        return np.abs(weights @ gaps / (weights @ s.sizes)[:, None]).sum(axis=1)

    def away(weights: np.ndarray) -> np.ndarray:
        return np.abs(weights @ gaps / (weights @ s.sizes)[:, None] - found).sum(axis=1)

    draw = {"n": s.n, "clusters": s.clusters, "resamples": resamples, "seed": seed}
    drawn = resampled(error, **draw)
    far = reach(level, s.clusters)
    wider = far / float(norm.ppf((1 + level) / 2))
    low = value - wider * float(np.quantile(resampled(away, **draw), (1 + level) / 2))
    high = 2 * value - float(drawn.mean()) + far * float(drawn.std())
    chance = _by_chance(sure, number, seed)
    return Estimate(
        "ECE", value, max(0.0, low), min(1.0, max(value, high)), s.n, s.clusters, chance, level
    )


def _by_chance(sure: np.ndarray, number: np.ndarray, seed: int, draws: int = 400) -> float:
    """Mean calibration error when each answer is right with its confidence."""
    rng = np.random.default_rng([seed, 2])
    found = []
    for _ in range(draws):
        away = (rng.random(len(sure)) < sure) - sure
        found.append(np.abs(np.bincount(number, weights=away)).sum() / len(sure))
    return float(np.mean(found))


def _mean(values: np.ndarray, s: Samples) -> Statistic:
    sums = s.sums(values)
    return lambda weights: (weights @ sums) / (weights @ s.sizes)


def _area(sure: np.ndarray, hit: np.ndarray, s: Samples) -> Statistic:
    order, starts = _falling(sure)
    wrong, cluster = 1 - hit[order], s.cluster[order]

    def area(weights: np.ndarray) -> np.ndarray:
        weights = weights[:, cluster]
        gained = np.add.reduceat(weights, starts, axis=1)
        seen = np.cumsum(gained, axis=1)
        failed = np.cumsum(np.add.reduceat(weights * wrong, starts, axis=1), axis=1)
        risk = np.divide(failed, seen, out=np.zeros_like(seen), where=seen > 0)
        return np.einsum("rg,rg->r", gained, risk) / seen[:, -1]

    return area


def _estimate(
    name: str,
    statistic: Statistic,
    chance: float,
    *,
    s: Samples,
    level: float,
    resamples: int,
    seed: int,
) -> Estimate:
    value, low, high = interval(
        name,
        statistic,
        n=s.n,
        clusters=s.clusters,
        level=level,
        resamples=resamples,
        seed=seed,
    )
    return Estimate(name, value, low, high, s.n, s.clusters, chance, level)
