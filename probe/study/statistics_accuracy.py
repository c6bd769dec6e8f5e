"""Accuracy with two intervals, and two accuracies on the same samples."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from probe.study.statistics_difference import mean_interval
from probe.study.statistics_extra import need
from probe.study.statistics_result import Result, p_text, size
from probe.study.statistics_samples import classes, samples


@dataclass(frozen=True)
class Accuracy(Result):
    """Share of samples that are right.

    Attributes:
        low, high: bootstrap interval over clusters.
        wilson_low, wilson_high: Wilson's interval, which takes samples for independent.
        right: how many are right.
    """

    value: float
    low: float
    high: float
    wilson_low: float
    wilson_high: float
    right: int
    n: int
    clusters: int
    level: float

    def __str__(self) -> str:
        numbers = f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"
        return f"{numbers}, {size(self)}"


@dataclass(frozen=True)
class McNemar(Result):
    """Two accuracies on the same samples: does one win the samples on which they differ?

    Attributes:
        only_a, only_b: samples that one alone has right.
        p_exact: two-sided binomial test.
        p_mid: the same with half the probability of what was observed, less conservative
            (Fagerland, Lydersen and Laake 2013).
    """

    only_a: int
    only_b: int
    p_exact: float
    p_mid: float
    n: int

    def __str__(self) -> str:
        return (
            f"{self.only_a} right by the first alone, {self.only_b} by the second, of {self.n}; "
            f"exact {p_text(self.p_exact)}, mid {p_text(self.p_mid)}"
        )


def accuracy(
    right: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Accuracy:
    """Share of right answers, with Wilson's interval and a bootstrap interval over videos.

    Where all are right, or none, a bootstrap sees no doubt: low and high are then Wilson's with
    each video counted once.

    Args:
        right: 0 or 1 a sample [sample].
        clusters: the video of each sample [sample]; None: no two samples share one.

    Raises:
        ProbeError: values other than 0 and 1, or as in `difference`.
    """
    s = samples("accuracy", clusters, right=right)
    (hit,) = s.columns
    classes("accuracy", "right", hit)
    value, low, high = mean_interval("accuracy", s, hit, level, resamples, seed)
    count = int(hit.sum())
    wilson = need("statsmodels.stats.proportion").proportion_confint
    if count in (0, s.n):
        low, high = wilson(round(value) * s.clusters, s.clusters, 1 - level, method="wilson")
    wilson_low, wilson_high = wilson(count, s.n, alpha=1 - level, method="wilson")
    return Accuracy(
        value=value,
        low=float(low),
        high=float(high),
        wilson_low=float(wilson_low),
        wilson_high=float(wilson_high),
        right=count,
        n=s.n,
        clusters=s.clusters,
        level=level,
    )


def mcnemar(a: ArrayLike, b: ArrayLike) -> McNemar:
    """McNemar's test of paired accuracies, exact and mid-p.

    It takes samples for independent; `difference(a, b, clusters)` gives the test that does not
    where videos hold several samples, and this one where they hold one.

    Args:
        a, b: 0 or 1 a sample [sample], in the same order.

    Raises:
        ProbeError: values other than 0 and 1, unpaired lengths, values missing, one sample.
    """
    from scipy.stats import binom

    s = samples("mcnemar", None, a=a, b=b)
    left, right = s.columns
    classes("mcnemar", "a", left)
    classes("mcnemar", "b", right)
    only_a = int((left > right).sum())
    only_b = int((right > left).sum())
    both = int((left * right).sum())
    table = [[both, only_a], [only_b, s.n - both - only_a - only_b]]
    exact = need("statsmodels.stats.contingency_tables").mcnemar(table, exact=True)
    fewer = min(only_a, only_b)
    total = only_a + only_b
    mid = 2 * binom.cdf(fewer, total, 0.5) - binom.pmf(fewer, total, 0.5)
    return McNemar(only_a, only_b, float(exact.pvalue), float(min(1.0, mid)), s.n)
