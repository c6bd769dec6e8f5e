"""Intervals, tests and sample sizes over simulated studies with known truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from probe.study.statistics import (
    auroc,
    auroc_difference,
    average_precision,
    calibration,
    difference,
    equivalence,
    holm,
    spearman,
)
from probe.study.statistics_permutation import sign_flips

STUDIES = 400


def limits(share: float, studies: int = STUDIES) -> tuple[float, float]:
    """Where a share over simulated studies lies with a chance of 99.9 %."""
    low, high = stats.binom.ppf([0.0005, 0.9995], studies, share) / studies
    return float(low), float(high)


def videos(rng: np.random.Generator, count: int) -> np.ndarray:
    """1 to 7 samples a video."""
    return np.repeat(np.arange(count), rng.integers(1, 8, size=count))


def normal(rng: np.random.Generator, video: np.ndarray) -> np.ndarray:
    return rng.normal(size=video.max() + 1)[video] + rng.normal(size=len(video))


def skewed(rng: np.random.Generator, video: np.ndarray) -> np.ndarray:
    both = rng.exponential(size=video.max() + 1)[video] + rng.exponential(size=len(video))
    return both - 2


def answers(rng: np.random.Generator, video: np.ndarray) -> np.ndarray:
    """A tenth of the answers lost, more in some videos."""
    chance = rng.beta(0.6, 5.4, size=video.max() + 1)[video]
    return 0.1 - (rng.random(len(video)) < chance)


@pytest.mark.parametrize("kind", [normal, skewed, answers])
def test_interval_covers_and_the_one_without_clusters_does_not(kind) -> None:
    rng = np.random.default_rng(0)
    covered = naive = 0
    for _ in range(STUDIES):
        video = videos(rng, 60)
        d = kind(rng, video)
        zero = np.zeros(len(d))
        found = difference(d, zero, video, resamples=1_000, permutations=100)
        covered += found.low <= 0 <= found.high
        naive += abs(d.mean()) <= 1.96 * stats.sem(d)
    low, high = limits(0.95)
    assert low <= covered / STUDIES <= high
    assert naive / STUDIES < low


def test_few_videos_cover_better_than_the_percentile_interval() -> None:
    rng = np.random.default_rng(1)
    covered = plain = 0
    for _ in range(STUDIES):
        d = rng.normal(size=8)
        found = difference(d, np.zeros(8), resamples=1_000)
        drawn = d[rng.integers(8, size=(1_000, 8))].mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        covered += found.low <= 0 <= found.high
        plain += low <= 0 <= high
    assert covered / STUDIES > 0.91 > plain / STUDIES


def test_rankings_cover() -> None:
    """Scores of positives one normal spread above the others, both alike within a video."""
    rng = np.random.default_rng(2)
    studies = 100
    truth_auroc = stats.norm.cdf(1 / math.sqrt(2 * (1 + 0.25)))
    large = rng.normal(size=(2, 400_000)) * math.sqrt(1.25)
    positive = np.arange(400_000) % 2
    precise = average_precision_of(large[0] + positive, positive)
    hits = dict.fromkeys(("auroc", "average precision", "difference", "spearman"), 0)
    for _ in range(studies):
        video = videos(rng, 60)
        truth = rng.integers(0, 2, size=len(video))
        alike = 0.5 * rng.normal(size=(2, 60))[:, video]
        score, other = truth + alike + rng.normal(size=(2, len(video)))
        how = {"resamples": 400}
        one = auroc(score, truth, video, **how)
        two = average_precision(score, truth, video, **how)
        gap = auroc_difference(score, other, truth, video, permutations=100, **how)
        rank = spearman(score - truth, other - truth, video, **how)
        hits["auroc"] += one.low <= truth_auroc <= one.high
        hits["average precision"] += two.low <= precise <= two.high
        hits["difference"] += gap.low <= 0 <= gap.high
        hits["spearman"] += rank.low <= 0 <= rank.high
    low, high = limits(0.95, studies)
    for name, count in hits.items():
        assert low <= count / studies <= high, name


def average_precision_of(score: np.ndarray, truth: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth, score))


@pytest.mark.parametrize("over", [0.0, 0.3])
def test_calibration_error_covers(over: float) -> None:
    """Perfect confidence, and one that is too high by up to .24; bins hardly matter to either."""
    rng = np.random.default_rng(3)
    sure = rng.beta(2, 1.5, size=200_000)
    truth = float(np.mean(np.abs(over * (sure - 0.2))))
    hits = below = 0
    studies = 120
    for _ in range(studies):
        video = videos(rng, 60)
        sure = rng.beta(2, 1.5, size=len(video))
        right = rng.random(len(video)) < sure - over * (sure - 0.2)
        found = calibration(sure, right, video, resamples=300).ece
        hits += found.low <= truth <= found.high
        below += found.value < found.chance
    assert hits / studies >= limits(0.95, studies)[0]
    if over:
        assert below < studies / 20
    else:
        assert 0.3 < below / studies < 0.8


def test_permutation_test_keeps_its_level() -> None:
    rng = np.random.default_rng(4)
    p, naive = [], []
    for _ in range(STUDIES):
        video = videos(rng, 25)
        d = normal(rng, video)
        p.append(difference(d, 0 * d, video, resamples=100, permutations=999).p)
        naive.append(stats.ttest_1samp(d, 0).pvalue)
    low, high = limits(0.05)
    assert low <= np.mean(np.array(p) <= 0.05) <= high
    assert np.mean(np.array(naive) <= 0.05) > high
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_exchange_of_ranks_keeps_its_level() -> None:
    rng = np.random.default_rng(5)
    p = []
    for _ in range(STUDIES):
        video = videos(rng, 25)
        truth = rng.integers(0, 2, size=len(video))
        alike = rng.normal(size=(2, 25))[:, video]
        score, other = truth + alike + rng.normal(size=(2, len(video)))
        # Another scale, the same ranking in truth.
        found = auroc_difference(
            score, np.exp(other), truth, video, resamples=100, permutations=499
        )
        p.append(found.p)
    low, high = limits(0.05)
    assert low <= np.mean(np.array(p) <= 0.05) <= high


def test_holm_keeps_the_chance_of_any_false_claim() -> None:
    """8 layers whose tests depend on one another, 2 of which have an effect."""
    rng = np.random.default_rng(6)
    effect = np.r_[np.full(2, 0.8), np.zeros(6)]
    any_false = uncorrected = found = 0
    for _ in range(STUDIES):
        d = effect + 0.5 * rng.normal(size=(40, 1)) + rng.normal(size=(40, 8))
        p = np.array([sign_flips(x, permutations=999, seed=0)[0] for x in d.T])
        any_false += bool((holm(p)[2:] <= 0.05).any())
        uncorrected += bool((p[2:] <= 0.05).any())
        found += (holm(p)[:2] <= 0.05).mean()
    assert any_false / STUDIES <= limits(0.05)[1]
    assert uncorrected / STUDIES > 0.15
    assert found / STUDIES > 0.8


@pytest.mark.parametrize("margin", [(-0.25, 0.25), (-0.25, math.inf)])
def test_the_samples_it_would_take_are_enough(margin: tuple[float, float]) -> None:
    rng = np.random.default_rng(7)

    def study(count: int) -> tuple[np.ndarray, np.ndarray]:
        video = np.repeat(np.arange(count), 4)
        return 0.6 * rng.normal(size=count)[video] + rng.normal(size=4 * count), video

    # A pilot with exactly the spread that is simulated, and no difference.
    spread = math.sqrt(0.36 + 1 / 4)
    pilot = np.repeat(np.tile([-1.0, 1.0], 6), 4) * spread * math.sqrt(11 / 12)
    plan = equivalence(pilot, 0 * pilot, margin, np.repeat(np.arange(12), 4))
    assert plan.verdict == "inconclusive"
    assert plan.videos is not None and plan.samples == 4 * plan.videos
    shown = false = 0
    for _ in range(STUDIES):
        d, video = study(plan.videos)
        shown += equivalence(d, 0 * d, margin, video).verdict == "holds"
        # A loss as large as the margin must not pass.
        false += equivalence(d - 0.25, 0 * d, margin, video).verdict == "holds"
    low, high = limits(0.8)
    assert low <= shown / STUDIES <= high
    assert false / STUDIES <= limits(0.05)[1]


def test_samples_as_seen_are_more_when_something_is_lost() -> None:
    rng = np.random.default_rng(8)
    d = rng.normal(size=60)
    d += -0.1 - d.mean()
    plan = equivalence(d, 0 * d, 0.2)
    assert plan.samples is not None and plan.samples_as_seen is not None
    assert plan.samples_as_seen > 2 * plan.samples
    count = plan.samples_as_seen
    shown = 0
    for _ in range(STUDIES):
        again = rng.normal(-0.1, d.std(ddof=1), size=count)
        shown += equivalence(again, 0 * again, 0.2).verdict == "holds"
    low, high = limits(0.8)
    assert low <= shown / STUDIES <= high
