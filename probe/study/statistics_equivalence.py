"""Is a difference too small to matter? Two one-sided tests, and the samples that it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from numpy.typing import ArrayLike

from probe.errors import ProbeError
from probe.study.statistics_difference import clustered_error
from probe.study.statistics_result import Result, bracket, p_text, size
from probe.study.statistics_samples import samples

_MOST = 10**9
"""Videos beyond which a study is not planned."""


@dataclass(frozen=True)
class Equivalence(Result):
    """Whether a - b lies within a margin.

    Attributes:
        verdict: `holds` (within the margin), `fails` (outside it) or `inconclusive`.
        mean: of a - b.
        low, high: interval of 2 * level - 1 (90 % at .95), which lies within the margin exactly
            when the claim holds.
        p: the larger of the two one-sided tests; holds at p <= 1 - level.
        videos, samples: that the claim would take at this power if the true difference were 0;
            given where inconclusive.
        videos_as_seen, samples_as_seen: the same if it were the mean seen; None where that is
            outside the margin.
    """

    verdict: str
    mean: float
    low: float
    high: float
    margin_low: float
    margin_high: float
    p: float
    n: int
    clusters: int
    level: float
    power: float
    videos: int | None = None
    samples: int | None = None
    videos_as_seen: int | None = None
    samples_as_seen: int | None = None

    def __str__(self) -> str:
        numbers = bracket(self.mean, self.low, self.high, "+")
        margin = f"({self.margin_low:+.3g}, {self.margin_high:+.3g})"
        text = f"{self.verdict}: {numbers} in {margin}, {p_text(self.p)}, {size(self)}"
        if self.samples is None:
            return text
        return f"{text}; would take {self.samples} in {self.videos} videos if there is no loss"


def equivalence(
    a: ArrayLike,
    b: ArrayLike,
    margin: float | tuple[float, float],
    clusters: ArrayLike | None = None,
    *,
    level: float = 0.95,
    power: float = 0.8,
) -> Equivalence:
    """Two one-sided t tests of a - b against a margin (Schuirmann 1987), clustered by video.

    The error knows of the clusters and the tests have G - 1 degrees of freedom. The samples it
    would take keep the spread and the size of the videos seen.

    Args:
        a, b: one value a sample [sample], in the same order.
        margin: largest difference that does not matter, either way; or its two ends, one of which
            may be infinite: `(-0.01, math.inf)` claims no loss above .01 and lets a gain pass.
        clusters: the video of each sample [sample]; None: no two samples share one.
        level: 1 - the chance of a false claim.
        power: chance that the planned study shows it.

    Raises:
        ProbeError: a margin without 0 inside, differences all equal, or as in `difference`.
    """
    from scipy.stats import t

    ends = margin if isinstance(margin, tuple) else (-margin, margin)
    below, above = float(ends[0]), float(ends[1])
    if not below < 0 < above or (math.isinf(below) and math.isinf(above)):
        raise ProbeError(f"equivalence: margin must be above 0, or two ends around 0, not {margin}")
    if not 0.5 < level < 1 or not 0 < power < 1:
        raise ProbeError(
            f"equivalence: level ({level}) must lie between .5 and 1, power ({power}) in 0 to 1"
        )
    s = samples("equivalence", clusters, a=a, b=b)
    d = s.columns[0] - s.columns[1]
    mean, error = float(d.mean()), clustered_error(s, d)
    if error <= 1e-12 * max(abs(mean), abs(float(d.max())), abs(float(d.min())), 1e-300):
        raise ProbeError(
            f"equivalence: all {s.clusters} videos have the same mean difference ({mean:g}): "
            "there is no spread to test against"
        )
    free = s.clusters - 1
    reach = float(t.ppf(level, free)) * error
    p = max(t.sf((mean - below) / error, free), t.sf((above - mean) / error, free))
    verdict = "inconclusive"
    if p <= 1 - level:
        verdict = "holds"
    elif mean + reach < below or mean - reach > above:
        verdict = "fails"
    spread = error * math.sqrt(s.clusters)
    unsure = verdict == "inconclusive"
    zero = _videos(below, above, spread, level, power) if unsure else None
    seen = _videos(below - mean, above - mean, spread, level, power) if unsure else None
    return Equivalence(
        verdict=verdict,
        mean=mean,
        low=mean - reach,
        high=mean + reach,
        margin_low=below,
        margin_high=above,
        p=float(p),
        n=s.n,
        clusters=s.clusters,
        level=level,
        power=power,
        videos=zero,
        samples=None if zero is None else math.ceil(zero * s.n / s.clusters),
        videos_as_seen=seen,
        samples_as_seen=None if seen is None else math.ceil(seen * s.n / s.clusters),
    )


def _videos(below: float, above: float, spread: float, level: float, power: float) -> int | None:
    """Fewest videos with this power, for a true difference of 0 between the ends.

    Args:
        spread: standard error times the square root of the number of videos.
    """
    if not below < 0 < above:
        return None
    few, many = 1, 2
    while _power(many, below, above, spread, level) < power:
        few, many = many, many * 2
        if many > _MOST:
            return None
    while many - few > 1:
        middle = (few + many) // 2
        if _power(middle, below, above, spread, level) < power:
            few = middle
        else:
            many = middle
    return many


def _power(videos: int, below: float, above: float, spread: float, level: float) -> float:
    """Chance that both tests reject, by t distributions moved to the ends of the margin."""
    from scipy.special import stdtr, stdtrit

    error, free = spread / math.sqrt(videos), videos - 1
    need = stdtrit(free, level)
    return float(stdtr(free, above / error - need) + stdtr(free, -below / error - need) - 1)
