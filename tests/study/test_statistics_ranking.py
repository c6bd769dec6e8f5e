"""Rankings, correlation and calibration against scikit-learn, scipy and counting."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics
from sklearn.calibration import calibration_curve

from probe.errors import ProbeError
from probe.study.statistics import (
    auroc,
    auroc_difference,
    average_precision,
    calibration,
    fifths,
    risk_coverage,
    spearman,
)
from probe.study.statistics_bootstrap import reach
from probe.study.statistics_correlation import _kernel as spearman_kernel
from probe.study.statistics_ranking import auroc_kernel, precision_kernel
from probe.study.statistics_ranking_difference import _gain


@pytest.fixture(params=["ties", "no ties"])
def data(request: pytest.FixtureRequest):
    """Score, another score, truth, video: 90 samples of 18 videos."""
    rng = np.random.default_rng(0)
    video = rng.integers(0, 18, size=90)
    truth = rng.integers(0, 2, size=90).astype(float)
    score = truth + rng.normal(size=90) + rng.normal(size=18)[video] * 0.5
    other = truth * 0.4 + rng.normal(size=90)
    if request.param == "ties":
        score, other = np.round(score), np.round(other)
    return score, other, truth, video


def drawn(video: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each video is drawn, and the samples that this gives."""
    weights = np.random.default_rng(seed).multinomial(18, np.full(18, 1 / 18)).astype(float)
    return weights[None], np.repeat(np.arange(len(video)), weights[video].astype(int))


@pytest.mark.parametrize("seed", range(5))
def test_weights_of_videos_are_repeated_samples(data, seed: int) -> None:
    score, other, truth, video = data
    weights, rows = drawn(video, seed)
    one = np.zeros(90)
    found = auroc_kernel(score, truth, video, one)(weights)[0]
    assert found == pytest.approx(metrics.roc_auc_score(truth[rows], score[rows]))
    found = precision_kernel(score, truth, video)(weights)[0]
    assert found == pytest.approx(metrics.average_precision_score(truth[rows], score[rows]))
    found = spearman_kernel(score, other, video)(weights)[0]
    assert found == pytest.approx(stats.spearmanr(score[rows], other[rows]).statistic)


def test_values_and_chance(data) -> None:
    score, other, truth, video = data
    found = auroc(score, truth, video)
    assert found.value == pytest.approx(metrics.roc_auc_score(truth, score))
    assert found.chance == 0.5 and found.low < found.value < found.high
    precise = average_precision(score, truth, video)
    assert precise.value == pytest.approx(metrics.average_precision_score(truth, score))
    assert precise.chance == truth.mean() and precise.low < precise.value < precise.high
    rank = spearman(score, other, video)
    assert rank.value == pytest.approx(stats.spearmanr(score, other).statistic)
    assert rank.low < rank.value < rank.high
    assert str(found).startswith("AUROC 0.") and str(found).endswith("n 90 in 18 videos")
    assert found.to_json()["clusters"] == 18


def test_intervals_are_scipys_between_videos() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, size=120)
    score = truth + rng.normal(size=120)
    other = score + rng.normal(size=120)
    level = 2 * stats.norm.cdf(reach(0.95, 120)) - 1
    how = {"paired": True, "confidence_level": level, "method": "BCa", "rng": 0}
    there = stats.bootstrap(
        (truth, score), metrics.roc_auc_score, vectorized=False, n_resamples=800, **how
    ).confidence_interval
    found = auroc(score, truth, resamples=10_000)
    assert (found.low, found.high) == pytest.approx((there.low, there.high), abs=0.02)
    there = stats.bootstrap(
        (score, other),
        lambda x, y: stats.spearmanr(x, y).statistic,
        vectorized=False,
        n_resamples=800,
        **how,
    ).confidence_interval
    found = spearman(score, other, resamples=10_000)
    assert (found.low, found.high) == pytest.approx((there.low, there.high), abs=0.03)


def test_matched_auroc_counts_pairs_of_a_stratum(data) -> None:
    score, _, truth, video = data
    strata = np.random.default_rng(2).integers(0, 4, size=90)
    wins = pairs = 0.0
    for i in np.flatnonzero(truth == 1):
        for j in np.flatnonzero((truth == 0) & (strata == strata[i])):
            wins += (score[i] > score[j]) + (score[i] == score[j]) / 2
            pairs += 1
    assert auroc(score, truth, video, matched=strata).value == pytest.approx(wins / pairs)


def test_matched_auroc_gives_nothing_for_position() -> None:
    """A score that is the position ranks late events well and earns nothing when matched."""
    rng = np.random.default_rng(3)
    position = rng.integers(0, 100, size=4_000)
    truth = rng.random(4_000) < position / 100
    score = position + rng.normal(size=4_000)
    video = rng.integers(0, 200, size=4_000)
    strata = fifths(position, 50)
    assert auroc(score, truth, video).value > 0.8
    matched = auroc(score, truth, video, matched=strata, resamples=500)
    assert matched.low < 0.52 and matched.value < 0.54
    assert sorted(set(fifths(position))) == [0, 1, 2, 3, 4]
    assert np.bincount(fifths(position).astype(int)) == pytest.approx(800, rel=0.1)


def test_difference_of_aurocs(data) -> None:
    score, other, truth, video = data
    found = auroc_difference(score, other, truth, video)
    there = [metrics.roc_auc_score(truth, values) for values in (score, other)]
    assert (found.auroc_a, found.auroc_b) == pytest.approx(there)
    assert found.difference == pytest.approx(there[0] - there[1])
    assert found.low < found.difference < found.high
    assert (found.low > 0) == (found.p < 0.05)
    assert "\n" not in str(found) and found.to_json()["exact"] is False
    swapped = auroc_difference(other, score, truth, video)
    assert swapped.p == pytest.approx(found.p, abs=0.01)
    none = auroc_difference(score, 3 * score - 7, truth, video)
    assert (none.difference, none.low, none.high, none.p) == (0, 0, 0, 1)
    blind = auroc_difference(score + 3 * truth, np.arange(90) % 7, truth, video)
    assert blind.low > 0.2 and blind.p < 0.001


@pytest.mark.parametrize("strata", [1, 3])
def test_exchange_of_ranks_is_a_flip_of_signs(data, strata: int) -> None:
    """The linear form against AUROCs of scores whose ranks are really exchanged."""
    score, other, truth, video = data
    stratum = np.arange(90) % strata
    gain = _gain(score, other, truth, stratum.astype(float))
    ranks = np.zeros((2, 90))
    pairs = 0.0
    for number in range(strata):
        at = stratum == number
        ranks[:, at] = stats.rankdata(score[at]), stats.rankdata(other[at])
        pairs += truth[at].sum() * (1 - truth[at]).sum()
    one = np.ones((1, 90))
    for seed in range(10):
        swap = np.random.default_rng(seed).integers(0, 2, size=18)[video] > 0
        mixed = np.where(swap, ranks[::-1], ranks)
        want = [
            auroc_kernel(values, truth, np.arange(90), stratum.astype(float))(one)[0]
            for values in mixed
        ]
        if strata == 1:
            assert want[0] == pytest.approx(metrics.roc_auc_score(truth, mixed[0]))
        found = np.where(swap, -1, 1) @ gain / pairs
        assert found == pytest.approx(want[0] - want[1])


def test_order_does_not_matter(data) -> None:
    score, other, truth, video = data
    order = np.random.default_rng(4).permutation(90)
    for of in (auroc, average_precision, spearman):
        assert of(score, truth, video) == of(score[order], truth[order], video[order])
    assert auroc_difference(score, other, truth, video) == auroc_difference(
        score[order], other[order], truth[order], video[order]
    )
    sure = stats.norm.cdf(score)
    assert calibration(sure, truth, video) == calibration(sure[order], truth[order], video[order])


def test_calibration_is_scikit_learns() -> None:
    rng = np.random.default_rng(5)
    sure = np.round(rng.beta(3, 2, size=400), 2)
    right = rng.random(400) < sure**2
    found = calibration(sure, right, rng.integers(0, 80, size=400), bins=8)
    share, mean = calibration_curve(right, sure, n_bins=8, strategy="quantile")
    assert [part.accuracy for part in found.bins] == pytest.approx(list(share))
    assert [part.confidence for part in found.bins] == pytest.approx(list(mean))
    sizes = np.array([part.n for part in found.bins])
    assert found.ece.value == pytest.approx((sizes * np.abs(share - mean)).sum() / 400)
    assert sizes.sum() == 400 and sizes.min() > 30
    assert found.brier.value == pytest.approx(metrics.brier_score_loss(right, sure))
    assert found.brier.low < found.brier.value < found.brier.high
    assert found.ece.low > found.ece.chance
    assert found.to_json()["bins"][0]["n"] == sizes[0]


def test_risk_coverage_by_counting() -> None:
    rng = np.random.default_rng(6)
    sure = np.round(rng.random(60), 1)
    right = rng.random(60) < sure
    table = risk_coverage(sure, right)
    before = area = 0.0
    for row in table.itertuples():
        answered = sure >= row.threshold
        assert row.coverage == pytest.approx(answered.mean())
        assert row.risk == pytest.approx(1 - right[answered].mean())
        area += (row.coverage - before) * row.risk
        before = row.coverage
    found = calibration(sure, right).area
    assert found.value == pytest.approx(area)
    assert found.value < found.chance == pytest.approx(1 - right.mean())


def test_area_of_confidences_without_ties_is_the_mean_risk() -> None:
    rng = np.random.default_rng(7)
    sure = rng.random(50)
    right = rng.random(50) < sure
    wrong = 1 - right[np.argsort(-sure)]
    want = np.mean(np.cumsum(wrong) / np.arange(1, 51))
    assert calibration(sure, right).area.value == pytest.approx(want)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: auroc([1, 2, 3], [1, 1, 1]), "all 3 samples are positive"),
        (lambda: average_precision([1, 2, 3], [0, 0, 0]), "all 3 samples are negative"),
        (lambda: auroc([1, 2, 3], [1, 0, 2]), "truth must be 0 or 1"),
        (lambda: auroc([1, 2], [1, 0]), "too few videos hold each class"),
        (lambda: auroc([1, 2, 3, 4], [1, 1, 0, 0], matched=[0, 0, 1, 1]), "no stratum holds both"),
        (lambda: spearman([1, 1, 1], [1, 2, 3]), "all 3 values of x are equal"),
        (lambda: calibration([0.5, 1.5], [0, 1]), "1 of 2 confidences are not between 0 and 1"),
        (lambda: calibration([0.5, 0.6], [0, 1], bins=10), "10 bins for 2 samples"),
    ],
)
def test_refusals(call, said: str) -> None:
    with pytest.raises(ProbeError) as error:
        call()
    assert said in str(error.value) and "\n" not in str(error.value)


def test_fast() -> None:
    rng = np.random.default_rng(8)
    truth = rng.integers(0, 2, size=1_000)
    score, other = truth + rng.normal(size=(2, 1_000))
    auroc(score, truth)
    start = time.perf_counter()
    auroc_difference(score, other, truth, rng.integers(0, 200, size=1_000))
    assert time.perf_counter() - start < 3
