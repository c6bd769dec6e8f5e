"""Holm, equivalence and curves against statsmodels and counting."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from probe.errors import ProbeError
from probe.study.statistics import curve, difference, equivalence, families, holm


def by_hand(p: np.ndarray) -> np.ndarray:
    """Holm's steps, smallest p first."""
    adjusted = np.zeros(len(p))
    worst = 0.0
    for step, at in enumerate(np.argsort(p, kind="stable")):
        worst = max(worst, min(1.0, (len(p) - step) * p[at]))
        adjusted[at] = worst
    return adjusted


@pytest.mark.parametrize("seed", range(3))
def test_holm(seed: int) -> None:
    p = np.random.default_rng(seed).random(12) ** 3
    assert holm(p) == pytest.approx(by_hand(p))
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert (holm(p) <= 0.05).tolist() == multipletests(p, 0.05, method="holm")[0].tolist()
    assert holm([0.02]) == pytest.approx([0.02])


def test_families_are_corrected_apart() -> None:
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.001, 0.2])
    table = pd.DataFrame({"layer": range(6), "method": list("aabbbb"), "p": p}, index=range(9, 15))
    found = families(table, "method")
    assert found["tests"].tolist() == [2, 2, 0, 3, 3, 3]
    assert found["p_holm"].to_numpy()[:2] == pytest.approx(by_hand(p[:2]))
    assert found["p_holm"].to_numpy()[3:] == pytest.approx(by_hand(p[3:]))
    assert np.isnan(found["p_holm"].to_numpy()[2])
    assert found["significant"].tolist() == [True, True, False, False, True, False]
    assert "p_holm" not in table and list(found.index) == list(range(9, 15))
    whole = families(table)["p_holm"].to_numpy()
    assert whole[~np.isnan(p)] == pytest.approx(by_hand(p[~np.isnan(p)]))
    keep = families(table, level=0.995)["significant"]
    assert keep.tolist() == [False, False, False, False, True, False]


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.7])
def test_equivalence_is_two_t_tests_between_videos(shift: float) -> None:
    rng = np.random.default_rng(1)
    b = rng.normal(size=60)
    a = b + shift + rng.normal(size=60)
    p, low, high = ttost_paired(a, b, -0.5, 0.5)
    found = equivalence(a, b, 0.5)
    assert found.p == pytest.approx(p)
    assert found.p == pytest.approx(max(low[1], high[1]))
    t = stats.ttest_rel(a, b).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((t.low, t.high))
    assert (found.verdict == "holds") == (found.low > -0.5 and found.high < 0.5)


def test_verdicts() -> None:
    rng = np.random.default_rng(2)
    b = rng.normal(size=200)
    a = b + 0.2 * rng.normal(size=200)
    assert equivalence(a, b, 0.1).verdict == "holds"
    assert equivalence(a + 1, b, 0.1).verdict == "fails"
    assert equivalence(a + 1, b, (-0.1, math.inf)).verdict == "holds"
    assert equivalence(a - 1, b, (-0.1, math.inf)).verdict == "fails"
    unsure = equivalence(a + 0.1, b, 0.1)
    assert unsure.verdict == "inconclusive"
    assert unsure.samples == unsure.videos
    assert "would take" in str(unsure) and "\n" not in str(unsure)
    assert equivalence(a, b, 0.1).samples is None
    assert unsure.to_json()["margin_low"] == -0.1
    assert equivalence(a, b, (-0.1, math.inf)).to_json()["margin_high"] is None


def test_clusters_widen_equivalence() -> None:
    rng = np.random.default_rng(3)
    video = np.repeat(np.arange(40), 10)
    a = rng.normal(size=40)[video] + 0.1 * rng.normal(size=400)
    by_video = stats.ttest_1samp(a.reshape(40, 10).mean(axis=1), 0).confidence_interval(0.9)
    found = equivalence(a, np.zeros(400), 0.2, video)
    assert (found.low, found.high) == pytest.approx((by_video.low, by_video.high))
    assert found.verdict == "inconclusive" and found.samples == 10 * (found.videos or 0)
    assert equivalence(a, np.zeros(400), 0.2).high < found.high


def test_samples_for_a_point_of_accuracy() -> None:
    """A tenth of the answers differ, one point is at stake, 80 %: the textbook's 7,849 samples."""
    d = np.repeat([1.0, -1.0, 0.0], [10, 10, 180])
    found = equivalence(d, np.zeros(200), (-0.01, math.inf), level=0.975)
    spread = d.var(ddof=1)
    want = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) ** 2 * spread / 0.01**2
    assert want == pytest.approx(7_849, rel=0.01)
    assert found.verdict == "inconclusive"
    assert found.samples == pytest.approx(want, rel=0.002)
    both = equivalence(d, np.zeros(200), 0.01)
    want = (stats.norm.ppf(0.95) + stats.norm.ppf(0.9)) ** 2 * spread / 0.01**2
    assert both.samples == pytest.approx(want, rel=0.002)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: holm([0.1, np.nan, 2.0]), "2 of 3 p values are NaN or not between 0 and 1"),
        (lambda: holm([]), "no p values"),
        (lambda: families(pd.DataFrame({"p": [0.1]}), "layer"), "no column 'layer'; it has p"),
        (lambda: equivalence([1, 2], [1, 3], 0.0), "margin must be above 0"),
        (lambda: equivalence([1, 2], [1, 3], (0.1, 0.2)), "margin must be above 0"),
        (lambda: equivalence([1, 2, 3], [0, 1, 2], 0.5), "all 3 videos have the same"),
        (lambda: equivalence([1, 2], [1, 3], 0.5, level=0.3), "level (0.3) must lie"),
    ],
)
def test_refusals(call, said: str) -> None:
    with pytest.raises(ProbeError) as error:
        call()
    assert said in str(error.value) and "\n" not in str(error.value)


def pruning(seed: int = 0) -> pd.DataFrame:
    """A method that beats random and uniform frames at .1 and equals them at .5."""
    rng = np.random.default_rng(seed)
    samples = np.arange(90)
    ease = rng.normal(size=90) + rng.normal(size=30)[samples // 3]
    parts = []

    def add(method: str, keep: float, gain: float, number: int = 0) -> None:
        parts.append(
            pd.DataFrame(
                {
                    "method": method,
                    "keep": keep,
                    "sample": samples,
                    "video": [f"v{sample // 3}" for sample in samples],
                    "seed": number,
                    "margin": ease + gain + 0.5 * rng.normal(size=90),
                }
            )
        )

    add("blind", math.nan, -2)
    add("full", math.nan, 1.5)
    for keep, gain in ((0.1, 1.0), (0.5, 0.0)):
        add("attention", keep, 1 + gain * 0.5)
        add("norm", keep, 1)
        add("uniform frames", keep, 1)
        for number in range(4):
            add("random", keep, 1, number)
    return pd.concat(parts, ignore_index=True)


def test_curve() -> None:
    table = pruning()
    found = curve(table, "keep", "margin")
    means = found[found["versus"] == ""].set_index(["method", "keep"])
    assert len(means) == 2 * 4 + 2
    assert means.loc[("random", 0.1), "seeds"] == 4
    rows = table[(table["method"] == "random") & (table["keep"] == 0.1)]
    assert means.loc[("random", 0.1), "estimate"] == pytest.approx(rows["margin"].mean())
    by_seed = rows.groupby("seed")["margin"].mean()
    assert means.loc[("random", 0.1), "seed_sd"] == pytest.approx(by_seed.std())
    tests = found[found["versus"] != ""]
    assert len(tests) == 2 * 2 * 3
    one = tests[
        (tests["method"] == "attention") & (tests["keep"] == 0.1) & (tests["versus"] == "random")
    ].iloc[0]
    at = table[(table["method"] == "attention") & (table["keep"] == 0.1)]
    want = difference(
        at["margin"].to_numpy(), rows.groupby("sample")["margin"].mean().to_numpy(), at["video"]
    )
    assert (one["estimate"], one["low"], one["high"], one["p"]) == pytest.approx(
        (want.mean, want.low, want.high, want.p)
    )
    for _, family in tests.groupby("versus"):
        assert family["p_holm"].to_numpy() == pytest.approx(by_hand(family["p"].to_numpy()))
    best = tests[tests["significant"] & (tests["versus"] != "blind")]
    assert set(zip(best["method"], best["keep"], strict=True)) == {("attention", 0.1)}
    assert tests[tests["versus"] == "blind"]["significant"].all()
    assert not found[found["versus"] == ""]["significant"].any()
    assert (tests["low"] < tests["estimate"]).all() and (tests["clusters"] == 30).all()


def test_curve_against_the_whole() -> None:
    found = curve(pruning(), "keep", "margin", ["full"])
    tests = found[found["versus"] == "full"]
    assert set(tests["method"]) == {"attention", "norm", "random", "uniform frames"}
    loss = tests.set_index(["method", "keep"])["estimate"]
    assert loss["norm", 0.5] == pytest.approx(-0.5, abs=0.25)


def test_curve_does_not_depend_on_the_order_of_rows() -> None:
    table = pruning()
    shuffled = table.sample(frac=1, random_state=1)
    found, again = curve(table, "keep", "margin"), curve(shuffled, "keep", "margin")
    numbers = ["estimate", "low", "high", "p", "p_holm"]
    assert found[numbers].to_numpy() == pytest.approx(again[numbers].to_numpy(), nan_ok=True)


def test_curve_refusals() -> None:
    table = pruning()
    first = table["method"].eq("uniform frames") & table["sample"].lt(7)
    cases = [
        (table.drop(columns="video"), "no column 'video'"),
        (table[table["method"] != "blind"], "control 'blind' is not in column 'method'"),
        (table[~first], "7 of 90 samples of attention at keep 0.1 are not there for uniform"),
        (table.assign(margin=table["margin"].where(table.index > 2)), "3 of 1440 values of margin"),
        (pd.concat([table, table.head(5)]), "5 rows repeat another's method, keep, sample, seed"),
        (table.assign(video=table["video"].where(table.index > 0, "x")), "1 samples are on a"),
        (table[~(table["keep"].eq(0.5) & table["method"].eq("random"))], "random was not run at"),
    ]
    for bad, said in cases:
        with pytest.raises(ProbeError) as error:
            curve(bad, "keep", "margin")
        assert said in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(ProbeError, match="controls alone"):
        curve(table[table["method"] == "blind"], "keep", "margin", ["blind"])
