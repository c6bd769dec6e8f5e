"""How well a score ranks positives above negatives, with intervals over videos."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from probe.errors import ProbeError
from probe.study.statistics_bootstrap import Statistic, interval
from probe.study.statistics_extra import need
from probe.study.statistics_result import Estimate
from probe.study.statistics_samples import Samples, classes, samples


def auroc(
    score: ArrayLike,
    truth: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    matched: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Estimate:
    """Chance that a positive scores above a negative, ties counting half.

    With `matched` only pairs in the same stratum count, so that a score gets nothing for knowing
    the stratum: tokens of a caption by fifths of their index (`fifths`), for instance, since
    hallucinated words come late. Where the ranking is perfect no resample doubts it, and low and
    high are 1 as well.

    Args:
        score: higher for positives [sample].
        truth: 1 for positives, 0 for negatives [sample].
        clusters: the video of each sample [sample]; None: no two samples share one.
        matched: a number of the stratum of each sample [sample].

    Raises:
        ProbeError: one class alone (in every stratum), or in so few videos that a bootstrap often
            misses it; or as in `difference`.
    """
    what = "auroc" if matched is None else "matched auroc"
    columns = {"score": score, "truth": truth} | ({} if matched is None else {"matched": matched})
    s = samples(what, clusters, **columns)
    positive = both_classes(what, s.columns[1])
    strata = s.columns[2] if matched is not None else np.zeros(s.n)
    kernel = auroc_kernel(s.columns[0], positive, s.cluster, strata)
    if np.isnan(kernel(np.ones((1, s.clusters)))).any():
        raise ProbeError(f"{what}: no stratum holds both positives and negatives: use wider ones")
    value, low, high = _interval(what, kernel, s, level, resamples, seed)
    if matched is None:
        value = float(need("sklearn.metrics").roc_auc_score(positive, s.columns[0]))
    name = "AUROC" if matched is None else "matched AUROC"
    return Estimate(name, value, low, high, s.n, s.clusters, 0.5, level)


def average_precision(
    score: ArrayLike,
    truth: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Estimate:
    """Mean precision over the recall that each threshold adds; chance is the share of positives.

    Args:
        score: higher for positives [sample].
        truth: 1 for positives, 0 for negatives [sample].
        clusters: the video of each sample [sample]; None: no two samples share one.

    Raises:
        ProbeError: as in `auroc`.
    """
    s = samples("average precision", clusters, score=score, truth=truth)
    positive = both_classes("average precision", s.columns[1])
    kernel = precision_kernel(s.columns[0], positive, s.cluster)
    _, low, high = _interval("average precision", kernel, s, level, resamples, seed)
    value = float(need("sklearn.metrics").average_precision_score(positive, s.columns[0]))
    chance = float(positive.mean())
    return Estimate("average precision", value, low, high, s.n, s.clusters, chance, level)


def fifths(position: ArrayLike, count: int = 5) -> Float[np.ndarray, " sample"]:
    """Strata of equal size by position, for `matched`; equal positions stay together.

    Args:
        position: of each sample [sample], such as the index of its token.
        count: of strata, 5 for fifths.
    """
    (values,) = samples("fifths", None, position=position).columns
    edges = np.quantile(values, np.arange(1, count) / count)
    return np.searchsorted(edges, np.asarray(position, dtype=float), side="left").astype(float)


def both_classes(what: str, truth: Float[np.ndarray, " sample"]) -> np.ndarray:
    """The truth, where it has both classes.

    Raises:
        ProbeError: it has one, or other values.
    """
    classes(what, "truth", truth)
    if truth.min() == truth.max():
        raise ProbeError(
            f"{what}: all {len(truth)} samples are {'positive' if truth[0] else 'negative'}: "
            "it takes both"
        )
    return truth


def auroc_kernel(
    score: np.ndarray, truth: np.ndarray, cluster: np.ndarray, strata: np.ndarray
) -> Statistic:
    """AUROC of pairs in the same stratum, for weights of clusters."""
    order = np.lexsort((score, strata))
    truth, cluster, strata, score = truth[order], cluster[order], strata[order], score[order]
    new_stratum = np.diff(strata, prepend=np.nan) != 0
    starts = np.flatnonzero(new_stratum | (np.diff(score, prepend=np.nan) != 0))
    tops = np.flatnonzero(new_stratum[starts])
    number = np.cumsum(new_stratum)[starts] - 1

    def kernel(weights: np.ndarray) -> np.ndarray:
        weights = weights[:, cluster]
        ups = np.add.reduceat(weights * truth, starts, axis=1)
        downs = np.add.reduceat(weights * (1 - truth), starts, axis=1)
        before = np.cumsum(downs, axis=1) - downs
        below = before - before[:, tops][:, number]
        wins = np.einsum("rg,rg->r", ups, below + downs / 2)
        pairs = np.einsum(
            "rs,rs->r", np.add.reduceat(ups, tops, axis=1), np.add.reduceat(downs, tops, axis=1)
        )
        return np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)

    return kernel


def precision_kernel(score: np.ndarray, truth: np.ndarray, cluster: np.ndarray) -> Statistic:
    """Average precision for weights of clusters."""
    order = np.argsort(-score, kind="stable")
    truth, cluster, score = truth[order], cluster[order], score[order]
    starts = np.flatnonzero(np.diff(score, prepend=np.nan) != 0)

    def kernel(weights: np.ndarray) -> np.ndarray:
        weights = weights[:, cluster]
        hits = np.add.reduceat(weights * truth, starts, axis=1)
        seen = np.cumsum(np.add.reduceat(weights, starts, axis=1), axis=1)
        found = np.cumsum(hits, axis=1)
        precision = np.divide(found, seen, out=np.zeros_like(seen), where=seen > 0)
        total = found[:, -1]
        gained = np.einsum("rg,rg->r", hits, precision)
        return np.divide(gained, total, out=np.full(len(total), np.nan), where=total > 0)

    return kernel


def _interval(
    what: str, kernel: Statistic, s: Samples, level: float, resamples: int, seed: int
) -> tuple[float, float, float]:
    return interval(
        what, kernel, n=s.n, clusters=s.clusters, level=level, resamples=resamples, seed=seed
    )
