"""Which of two scores ranks better, on the same samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from probe.errors import ProbeError
from probe.study.statistics_bootstrap import interval
from probe.study.statistics_permutation import sign_flips
from probe.study.statistics_ranking import auroc_kernel, both_classes
from probe.study.statistics_result import Result, bracket, p_text, size
from probe.study.statistics_samples import samples


@dataclass(frozen=True)
class RankingDifference(Result):
    """AUROC of a minus AUROC of b.

    Attributes:
        low, high: bootstrap interval over clusters.
        p: two-sided, by exchange of the ranks of a and b in whole clusters.
        exact: all exchanges were tried.
        auroc_a, auroc_b: of each score.
    """

    difference: float
    low: float
    high: float
    p: float
    exact: bool
    auroc_a: float
    auroc_b: float
    n: int
    clusters: int
    level: float

    def __str__(self) -> str:
        numbers = bracket(self.difference, self.low, self.high, "+")
        return (
            f"{numbers} ({self.auroc_a:.3f} - {self.auroc_b:.3f}), {p_text(self.p)}, {size(self)}"
        )


def auroc_difference(
    a: ArrayLike,
    b: ArrayLike,
    truth: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    matched: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 2_000,
    permutations: int = 9_999,
    seed: int = 0,
) -> RankingDifference:
    """AUROC of a score minus that of another, paired over samples, bootstrap over videos.

    The test exchanges the two scores' ranks in whole videos, so that scores on different scales can
    be compared (Bandos, Rockette and Gur 2005).

    Args:
        a, b: two scores, higher for positives [sample].
        truth: 1 for positives, 0 for negatives [sample].
        clusters: the video of each sample [sample]; None: no two samples share one.
        matched: a number of the stratum of each sample [sample], as in `auroc`.
        permutations: drawn where there are more than 14 videos; with fewer all are tried.

    Raises:
        ProbeError: as in `auroc`.
    """
    what = "auroc_difference"
    columns = {"a": a, "b": b, "truth": truth}
    s = samples(what, clusters, **columns | ({} if matched is None else {"matched": matched}))
    first, second, truth_sorted = s.columns[:3]
    positive = both_classes(what, truth_sorted)
    strata = s.columns[3] if matched is not None else np.zeros(s.n)
    of_a = auroc_kernel(first, positive, s.cluster, strata)
    of_b = auroc_kernel(second, positive, s.cluster, strata)
    whole = np.ones((1, s.clusters))
    if np.isnan(of_a(whole)).any():
        raise ProbeError(f"{what}: no stratum holds both positives and negatives: use wider ones")
    value, low, high = interval(
        what,
        lambda weights: of_a(weights) - of_b(weights),
        n=s.n,
        clusters=s.clusters,
        level=level,
        resamples=resamples,
        seed=seed,
    )
    gains = s.sums(_gain(first, second, positive, strata))
    p, exact = sign_flips(gains, permutations=permutations, seed=seed)
    return RankingDifference(
        difference=value,
        low=low,
        high=high,
        p=p,
        exact=exact,
        auroc_a=float(of_a(whole)[0]),
        auroc_b=float(of_b(whole)[0]),
        n=s.n,
        clusters=s.clusters,
        level=level,
    )


def _gain(
    a: np.ndarray, b: np.ndarray, truth: np.ndarray, strata: np.ndarray
) -> Float[np.ndarray, " sample"]:
    """What each sample's exchange takes from AUROC of a less AUROC of b, times pairs over 2.

    With ranks exchanged in some clusters (sign -1, else 1) the difference is a sum over pairs of
    a function of two signs that changes sign when both do. Such a function has no constant and no
    product of the two: it is linear, so that the difference is a sum over samples of sign times
    gain, and its permutation test one of sign flips.
    """
    from scipy.stats import rankdata

    gain = np.zeros(len(a))
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        ranks = rankdata(a[rows]), rankdata(b[rows])
        positive = truth[rows] > 0
        for of, against, sign in ((positive, ~positive, 1), (~positive, positive, -1)):
            for other in ranks:
                beaten = _beaten(ranks[0][of], other[against])
                gain[rows[of]] += sign * (beaten - _beaten(ranks[1][of], other[against])) / 2
    return gain


def _beaten(ranks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of the others each rank is above, ties counting half."""
    others = np.sort(others)
    return (np.searchsorted(others, ranks, "left") + np.searchsorted(others, ranks, "right")) / 2
