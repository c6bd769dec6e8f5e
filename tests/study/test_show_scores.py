"""Tables of scores against pandas, scipy, statsmodels and enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from probe.study.show_scores import COLUMNS, PART, scores
from tests.study.show_table import KEEPS, NAMES, label, loss, made

QUICK = {"resamples": 400, "permutations": 999}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return made()


@pytest.fixture(scope="module")
def found(table: pd.DataFrame) -> pd.DataFrame:
    return scores(table, NAMES.scores)


def row(found: pd.DataFrame, score: str, name: str) -> pd.Series:
    [one] = [r for _, r in found.iterrows() if (r["score"], r["label"]) == (score, name)]
    return one


def values(table: pd.DataFrame, name: str, score: str) -> pd.Series:
    return table[table["label"] == name].set_index("sample")[score]


def test_means_and_differences_are_those_of_pandas(table, found) -> None:
    assert list(found.columns) == list(COLUMNS)
    full = values(table, "untouched", "margin")
    for name in ("blind", *map(label, KEEPS)):
        here, one = values(table, name, "margin"), row(found, "margin", name)
        assert one["mean"] == pytest.approx(here.mean())
        assert one["difference"] == pytest.approx((here - full).mean())
        assert one["low"] < one["mean"] < one["high"]
        assert one["difference_low"] < one["difference"] < one["difference_high"]
        assert (one["n"], one["paired"], one["videos"]) == (60, 60, 20)
    for keep in KEEPS:  # what was put in is found
        one = row(found, "margin", label(keep))
        assert one["difference_low"] < -loss(keep) < one["difference_high"]
        assert one["significant"] == (loss(keep) > 0)
    alone = row(found, "margin", "untouched")
    assert np.isnan(alone["difference"]) and np.isnan(alone["p"]) and not alone["significant"]


def test_random_choice_is_the_mean_over_its_seeds(table, found) -> None:
    drawn = table[(table["role"] == "random") & (table["of"] == label(0.25))]
    assert drawn["label"].nunique() == 3
    mean = drawn.groupby("sample")["margin"].mean()
    full = values(table, "untouched", "margin")
    one = row(found, "margin", f"random for {label(0.25)}")
    assert one["mean"] == pytest.approx(mean.mean()) and one["seeds"] == 3
    assert one["difference"] == pytest.approx((mean - full).mean())
    assert one["n"] == 60
    assert np.isnan(row(found, "accuracy", f"random for {label(0.25)}")["mcnemar_p"])


def test_p_is_that_of_every_exchange_of_whole_videos() -> None:
    table = made(samples=27, videos=9)
    one = row(scores(table, ["margin"]), "margin", label(0.5))
    d = values(table, label(0.5), "margin") - values(table, "untouched", "margin")
    clips = table.drop_duplicates("sample").set_index("sample")["video"]
    sums = d.groupby(clips).sum().to_numpy()
    signs = np.array(list(itertools.product([1, -1], repeat=len(sums))))
    p = np.mean(np.abs(signs @ sums) >= abs(sums.sum()) - 1e-12)
    assert 0.01 < p < 1 and one["p"] == pytest.approx(p)


def test_holm_is_over_the_ablations_and_the_controls_apart(found) -> None:
    for score in NAMES.scores:
        of_score = found[found["score"] == score]
        for roles in (["ablation"], ["blind", "random", "uniform frames"]):
            family = of_score[of_score["role"].isin(roles)]
            expected = multipletests(family["p"], method="holm")[1]
            np.testing.assert_allclose(family["p_holm"], expected)
            assert list(family["significant"]) == list(expected <= 0.05)


def test_mcnemar_counts_the_samples_on_which_two_runs_differ(table, found) -> None:
    full = values(table, "untouched", "accuracy")
    here = values(table, label(0.1), "accuracy")
    one = row(found, "accuracy", label(0.1))
    lost, won = int(((full == 1) & (here == 0)).sum()), int(((full == 0) & (here == 1)).sum())
    assert lost > 5 and (one["only_untouched"], one["only_this"]) == (lost, won)
    few, both = min(lost, won), lost + won
    assert one["mcnemar_p"] == pytest.approx(
        min(1, 2 * binom.cdf(few, both, 0.5) - binom.pmf(few, both, 0.5))
    )
    assert np.isnan(row(found, "margin", label(0.1))["mcnemar_p"])


def test_no_loss_is_tested_within_a_part_of_what_the_video_is_worth() -> None:
    table = made(samples=40, videos=40, noise=0.05)
    found = scores(table, ["margin"], **QUICK)
    full, blind = values(table, "untouched", "margin"), values(table, "blind", "margin")
    limit = PART * (full - blind).mean()
    verdicts = {}
    for keep in KEEPS:
        here, one = values(table, label(keep), "margin"), row(found, "margin", label(keep))
        p, *_ = ttost_paired(here.to_numpy(), full[here.index].to_numpy(), -limit, limit)
        assert one["margin"] == pytest.approx(limit)
        assert one["equivalence_p"] == pytest.approx(p, abs=1e-12)
        verdicts[keep] = one["equivalence"]
    assert verdicts == {0.5: "holds", 0.25: "fails", 0.1: "fails"}
    blind_row = row(found, "margin", "blind")
    assert pd.isna(blind_row["equivalence"])  # it says what the video is worth
    unsure = row(scores(made(), ["margin"], **QUICK), "margin", label(0.5))
    assert unsure["equivalence"] == "inconclusive" and unsure["samples_needed"] > 60


def test_no_loss_needs_a_blind_run_that_is_worse() -> None:
    table = made(samples=20, videos=10)
    without = scores(table[table["role"] != "blind"], ["margin"], **QUICK)
    assert row(without, "margin", label(0.5))["equivalence"] == "needs the blind control"
    better = table.assign(margin=table["margin"].where(table["role"] != "blind", 9.0))
    one = row(scores(better, ["margin"], **QUICK), "margin", label(0.5))
    assert one["equivalence"].startswith("the video is worth nothing here")
    same = table.copy()
    of = {"untouched": same["label"] == "untouched", "half": same["label"] == label(0.5)}
    same.loc[of["half"], "margin"] = same.loc[of["untouched"], "margin"].to_numpy()
    one = row(scores(same, ["margin"], **QUICK), "margin", label(0.5))
    assert one["equivalence"].startswith("holds") and one["difference"] == 0


def test_only_samples_that_both_have_are_paired() -> None:
    table = made(samples=30, videos=10)
    table.loc[(table["label"] == label(0.5)) & (table["sample"] == "s3"), "margin"] = np.nan
    table = table[~((table["label"] == "untouched") & (table["sample"] == "s4"))]
    found = scores(table, ["margin"], **QUICK)
    one = row(found, "margin", label(0.5))
    full, here = values(table, "untouched", "margin"), values(table, label(0.5), "margin").dropna()
    assert (one["n"], one["paired"]) == (29, 28)
    assert one["difference"] == pytest.approx((here - full).dropna().mean())
    assert one["mean"] == pytest.approx(here.mean())


def test_models_are_kept_apart() -> None:
    table = made(samples=20, videos=10)
    worse = table.assign(model="n", margin=table["margin"] - 3)
    found = scores(pd.concat([table, worse]), ["margin"], **QUICK)
    [a, b] = [found[found["model"] == name].reset_index(drop=True) for name in "mn"]
    np.testing.assert_allclose(a["mean"], b["mean"] + 3)
    np.testing.assert_allclose(a["difference"].iloc[1:], b["difference"].iloc[1:])
    np.testing.assert_allclose(a["p_holm"].iloc[1:], b["p_holm"].iloc[1:])


def test_the_order_of_the_rows_does_not_matter() -> None:
    table = made(samples=20, videos=10)
    mixed = table.sample(frac=1, random_state=1)
    a, b = (scores(t, ["margin"], **QUICK).set_index("label") for t in (table, mixed))
    numbers = ["mean", "low", "high", "difference", "difference_low", "p", "p_holm"]
    pd.testing.assert_frame_equal(a[numbers], b.loc[a.index, numbers])


def test_one_video_has_means_without_intervals() -> None:
    table = made(samples=6, videos=1)
    found = scores(table, NAMES.scores, **QUICK)
    one = row(found, "margin", label(0.1))
    full, here = values(table, "untouched", "margin"), values(table, label(0.1), "margin")
    assert one["difference"] == pytest.approx((here - full).mean())
    assert np.isnan(one["low"]) and np.isnan(one["p"]) and "one cluster" in one["note"]


def test_all_right_is_no_certainty() -> None:
    table = made(samples=40, videos=40).assign(accuracy=1.0)
    one = row(scores(table, ["accuracy"], **QUICK), "accuracy", "untouched")
    assert one["mean"] == 1 and 0.85 < one["low"] < 0.95 and one["high"] == pytest.approx(1)


def test_no_sample_changed_is_no_loss_only_with_enough_of_them() -> None:
    """With a loss in a part `margin` of the videos, none of so many would show it."""
    for videos, verdict in ((60, "inconclusive"), (200, "holds")):
        table = made(samples=videos, videos=videos).assign(accuracy=1.0)
        table.loc[table["role"] == "blind", "accuracy"] = 0.0
        one = row(scores(table, ["accuracy"], **QUICK), "accuracy", label(0.5))
        p = binom.pmf(0, videos, PART)
        assert one["margin"] == pytest.approx(PART) and one["equivalence_p"] == pytest.approx(p)
        assert one["equivalence"] == verdict
        if verdict == "inconclusive":
            needed = int(one["samples_needed"])
            assert binom.pmf(0, needed, PART) <= 0.05 < binom.pmf(0, needed - 1, PART)
