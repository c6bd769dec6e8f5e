"""Differences, permutations and accuracies against scipy, statsmodels and brute force."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_there
from statsmodels.stats.proportion import proportion_confint

from probe.errors import ProbeError
from probe.study.statistics import (
    accuracy,
    auroc,
    average_precision,
    difference,
    mcnemar,
)
from probe.study.statistics_bootstrap import reach
from probe.study.statistics_difference import clustered_error
from probe.study.statistics_samples import samples


def study(rng: np.random.Generator, videos: int, each: int = 3, gap: float = 0.0):
    """Two conditions on several samples a video; differences within a video are alike."""
    video = np.repeat(np.arange(videos), each)
    b = rng.normal(size=len(video))
    a = b + gap + rng.normal(size=videos)[video] + rng.normal(size=len(video))
    return a, b, [f"clip {number}" for number in video]


def test_interval_is_scipys_bca_between_videos() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.exponential(size=(2, 150))
    found = difference(a, b, resamples=40_000)
    # scipy's BCa at the level that widening for the number of clusters asks for.
    level = 2 * stats.norm.cdf(reach(0.95, 150)) - 1
    there = stats.bootstrap(
        (a - b,), np.mean, confidence_level=level, n_resamples=40_000, method="BCa", rng=1
    )
    width = found.high - found.low
    assert found.low == pytest.approx(there.confidence_interval.low, abs=0.02 * width)
    assert found.high == pytest.approx(there.confidence_interval.high, abs=0.02 * width)


def test_clusters_are_drawn_whole() -> None:
    a, b, video = study(np.random.default_rng(1), videos=30, each=8)
    found = difference(a, b, video, resamples=20_000)
    by_video = (a - b).reshape(30, 8).mean(axis=1)
    level = 2 * stats.norm.cdf(reach(0.95, 30)) - 1
    there = stats.bootstrap(
        (by_video,), np.mean, confidence_level=level, n_resamples=20_000, method="BCa", rng=1
    )
    width = found.high - found.low
    assert found.mean == pytest.approx(by_video.mean())
    assert found.low == pytest.approx(there.confidence_interval.low, abs=0.03 * width)
    assert found.high == pytest.approx(there.confidence_interval.high, abs=0.03 * width)
    assert found.error == pytest.approx(stats.sem(by_video))
    plain = difference(a, b)
    assert width > 1.8 * (plain.high - plain.low)


def test_numbers_of_a_difference() -> None:
    a, b, video = study(np.random.default_rng(2), videos=12)
    found = difference(a, b, video)
    assert found.mean == pytest.approx(np.mean(a - b))
    assert (found.mean_a, found.mean_b) == pytest.approx((a.mean(), b.mean()))
    assert found.effect == pytest.approx(np.mean(a - b) / np.std(a - b, ddof=1))
    assert (found.n, found.clusters, found.exact) == (36, 12, True)
    assert found.low < found.mean < found.high
    assert json.loads(json.dumps(found.to_json()))["mean"] == found.mean
    assert str(found).endswith("n 36 in 12 videos") and "\n" not in str(found)


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9])
@pytest.mark.parametrize("gap", [0.0, 0.8])
def test_exact_p_is_brute_force(unit: float, gap: float) -> None:
    a, b, video = study(np.random.default_rng(3), videos=9, gap=gap)
    sums = (a - b).reshape(9, 3).sum(axis=1)
    sizes = [abs(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=9)]
    want = np.mean(np.array(sizes) >= abs(sums.sum()) - 1e-9)
    found = difference(a * unit, b * unit, video)
    assert found.exact
    assert found.p == pytest.approx(want)


def test_exact_p_is_scipys_with_a_sample_a_video() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.integers(0, 4, size=(2, 11)).astype(float)
    there = stats.permutation_test(
        (a - b,),
        np.mean,
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="two-sided",
    )
    assert difference(a, b).p == pytest.approx(there.pvalue)


def test_drawn_p_is_near_scipys() -> None:
    a, b, video = study(np.random.default_rng(5), videos=40, gap=0.1)
    sums = (a - b).reshape(40, 3).sum(axis=1)
    there = stats.permutation_test(
        (sums,), np.sum, permutation_type="samples", n_resamples=50_000, rng=0
    )
    found = difference(a, b, video, permutations=50_000)
    assert not found.exact
    assert 0.01 < there.pvalue < 0.5
    assert found.p == pytest.approx(there.pvalue, abs=4 * np.sqrt(0.25 / 25_000))


def test_p_agrees_with_wilcoxon() -> None:
    """On ranks with signs, the sign-flip test of the sum is Wilcoxon's signed-rank test."""
    d = np.random.default_rng(6).normal(0.4, 1.0, size=13)
    signed = np.sign(d) * stats.rankdata(np.abs(d))
    assert difference(signed, np.zeros(13)).p == pytest.approx(
        stats.wilcoxon(d, method="exact").pvalue
    )


def test_error_is_that_of_clustered_regression() -> None:
    from statsmodels.api import OLS

    rng = np.random.default_rng(7)
    video = rng.integers(0, 20, size=120)
    d = rng.normal(size=120) + rng.normal(size=20)[video]
    fit = OLS(d, np.ones(120)).fit(
        cov_type="cluster", cov_kwds={"groups": video, "use_correction": False}
    )
    groups = len(set(video))
    s = samples("test", video, d=d)
    want = fit.bse[0] * np.sqrt(groups / (groups - 1))
    assert clustered_error(s, s.columns[0]) == pytest.approx(want)


def test_seed_decides_and_order_does_not() -> None:
    a, b, video = study(np.random.default_rng(8), videos=25)
    order = np.random.default_rng(9).permutation(len(a))
    shuffled = (a[order], b[order], [video[number] for number in order])
    assert difference(a, b, video) == difference(*shuffled)
    assert difference(a, b) == difference(a[order], b[order])
    assert difference(a, b, video) == difference(a, b, video)
    assert difference(a, b, video).low != difference(a, b, video, seed=1).low


def test_equal_differences_leave_a_point() -> None:
    found = difference(np.arange(6.0), np.arange(6.0), [0, 0, 1, 1, 2, 2])
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert found.to_json()["effect"] is None


def test_fast() -> None:
    rng = np.random.default_rng(10)
    a, b = rng.normal(size=(2, 1000))
    difference(a, b)
    start = time.perf_counter()
    difference(a, b, resamples=2_000)
    assert time.perf_counter() - start < 2


def test_accuracy() -> None:
    rng = np.random.default_rng(11)
    video = np.repeat(np.arange(50), 4)
    right = rng.random(200) < rng.beta(1.5, 1, size=50)[video]
    found = accuracy(right, video)
    assert (found.value, found.right, found.n) == (right.mean(), right.sum(), 200)
    want = proportion_confint(right.sum(), 200, method="wilson")
    assert (found.wilson_low, found.wilson_high) == pytest.approx(want)
    assert found.high - found.low > 1.2 * (want[1] - want[0])
    assert found.low < found.value < found.high


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_accuracy_of_all_or_none_is_not_certain(value: float) -> None:
    found = accuracy(np.full(40, value), np.repeat(np.arange(10), 4))
    there = stats.binomtest(round(10 * value), 10).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((there.low, there.high))


@pytest.mark.parametrize(("only_a", "only_b"), [(9, 3), (5, 5), (0, 7), (0, 0), (1, 0)])
def test_mcnemar(only_a: int, only_b: int) -> None:
    a = np.r_[np.ones(only_a), np.zeros(only_b), np.ones(8), np.zeros(6)]
    b = np.r_[np.zeros(only_a), np.ones(only_b), np.ones(8), np.zeros(6)]
    found = mcnemar(a, b)
    table = [[8, only_a], [only_b, 6]]
    assert found.p_exact == pytest.approx(mcnemar_there(table, exact=True).pvalue)
    # By counting: every split of the samples that differ, that observed by half.
    total = only_a + only_b
    splits = [sum(way) for way in itertools.product((0, 1), repeat=total)]
    away = [abs(2 * split - total) for split in splits]
    seen = abs(only_a - only_b)
    beyond, same = np.mean([far > seen for far in away]), np.mean([far == seen for far in away])
    assert found.p_mid == pytest.approx(beyond + same / 2 if seen else 1.0)
    assert (found.only_a, found.only_b, found.n) == (only_a, only_b, len(a))


def test_mcnemar_is_the_permutation_test_of_single_samples() -> None:
    rng = np.random.default_rng(12)
    a, b = rng.random((2, 30)) < [[0.7], [0.5]]
    found = mcnemar(a, b)
    assert found.only_a + found.only_b <= 20
    assert difference(a, b, permutations=200_000).p == pytest.approx(found.p_exact, abs=0.006)


@pytest.mark.parametrize(
    ("a", "b", "clusters", "said"),
    [
        ([1.0, 2.0], [1.0], None, "a has 2 samples and b has 1"),
        ([1.0, 2.0], [1.0, 0.0], ["x"], "a has 2 samples and clusters has 1"),
        ([1.0, np.nan, np.inf], [1.0, 0.0, 1.0], None, "2 of 3 values of a are NaN or infinite"),
        ([1.0, 2.0], [1.0, 0.0], ["x", "x"], "all 2 samples are of one cluster"),
        ([], [], None, "there are no samples"),
        ([1.0, 2.0], [1.0, 0.0], ["x", None], "1 of 2 clusters are missing"),
        (["yes", "no"], [1.0, 0.0], None, "a must be numbers"),
        ([[1.0], [2.0]], [1.0, 0.0], None, "a has 2 dims"),
    ],
)
def test_refusals(a: list, b: list, clusters: list | None, said: str) -> None:
    with pytest.raises(ProbeError) as error:
        difference(a, b, clusters)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_refuses_series_of_other_rows() -> None:
    import pandas as pd

    table = pd.DataFrame({"a": np.arange(6.0), "b": np.arange(6.0) ** 2})
    with pytest.raises(ProbeError, match="different indexes"):
        difference(table["a"][table["a"] > 1], table["b"][table["b"] < 10])
    assert difference(table["a"], table["b"], table["a"] // 2).clusters == 3


def test_refuses_what_is_not_right_or_wrong() -> None:
    with pytest.raises(ProbeError, match=r"right must be 0 or 1 .* not 0.5"):
        accuracy([1, 0, 0.5])
    with pytest.raises(ProbeError, match="level must lie between 0 and 1, not 95"):
        accuracy([1, 0, 1], level=95)
    with pytest.raises(ProbeError, match="resamples must be 100 or more, not 10"):
        accuracy([1, 0, 1], resamples=10)
    with pytest.raises(ProbeError, match="permutations must be 100 or more, not 9"):
        difference([1, 0, 1], [0, 0, 1], permutations=9)


class Without:
    """Finds a package nowhere, as where it was not installed."""

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {self.package!r}", name=self.package)


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("statsmodels", lambda: accuracy([0, 1, 1])),
        ("statsmodels", lambda: mcnemar([0, 1, 1], [0, 0, 1])),
        ("sklearn", lambda: auroc(np.arange(20), np.arange(20) % 2)),
        ("sklearn", lambda: average_precision(np.arange(20), np.arange(20) % 2)),
    ],
)
def test_a_missing_package_is_one_line(
    package: str, call: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Without(package), *sys.meta_path])
    with pytest.raises(ProbeError) as error:
        call()
    assert str(error.value).endswith("pip install 'probe-video[study]' brings it")
    assert "\n" not in str(error.value)
