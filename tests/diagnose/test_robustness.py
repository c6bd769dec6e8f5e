"""Resist rate and temporal sensitivity score: what they must be, and what disturbances are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from probe.diagnose import Robustness
from probe.diagnose.counterfactual import seed_of
from probe.diagnose.disturbed import MODES, camera, complementary, dark, grain, mode, patches
from probe.errors import ProbeError
from tests import tiny as tiny_models
from tests.diagnose import seeing


def table(right, held, shuffled, back, timed, **more) -> pd.DataFrame:
    count = len(right)
    columns = {
        "sample": range(count),
        "video": range(count),
        "right": right,
        "right_grain": held,
        "changed_shuffled": shuffled,
        "changed_reversed": back,
        "order_sensitive": timed,
        "same_noise": 1.0,
        "agrees": np.nan,
        "agreed_before": np.nan,
    }
    return pd.DataFrame(columns | more)


def pooled(rows: pd.DataFrame) -> pd.DataFrame:
    return Robustness(("grain",)).pool(rows).set_index("name")


def test_identical_copies_resist_and_are_not_sensitive() -> None:
    ones, zeros = [1.0] * 12, [0.0] * 12
    found = pooled(table(ones, ones, zeros, zeros, [1.0] * 8 + [0.0] * 4))
    assert found.loc["RR", "value"] == 100 and found.loc["TSS", "value"] == 0
    assert found.loc["RR", "n"] == 12 and found.loc["TSS", "n"] == 8
    expected = binomtest(12, 12).proportion_ci(method="wilson")
    assert found.loc["RR", "low"] == pytest.approx(100 * expected.low)


def test_rates_are_counts_among_right_answers() -> None:
    rng = np.random.default_rng(3)
    right, held, shuffled, back, timed = (rng.random((5, 200)) < 0.6).astype(float)
    found = pooled(table(right, held, shuffled, back, timed))
    base = right == 1
    kept = int((base & (held == 1)).sum())
    expected = binomtest(kept, int(base.sum())).proportion_ci(method="wilson")
    row = found.loc["RR_grain"]
    assert row["value"] == pytest.approx(100 * kept / base.sum())
    assert row[["low", "high"]].tolist() == pytest.approx([100 * expected.low, 100 * expected.high])
    both = base & (timed == 1)
    assert found.loc["TSS_shuffled", "value"] == pytest.approx(100 * shuffled[both].mean())
    every = (shuffled[both].sum() + back[both].sum()) / (2 * both.sum())
    assert found.loc["TSS", "value"] == pytest.approx(100 * every)
    assert found.loc["TSS", "n"] == both.sum()


def test_random_answers_of_four_change_three_times_of_four() -> None:
    rng = np.random.default_rng(5)
    own, other = rng.integers(4, size=(2, 4000))
    changed = (own != other).astype(float)
    found = pooled(table(np.ones(4000), np.ones(4000), changed, changed, np.ones(4000)))
    assert found.loc["TSS", "value"] == pytest.approx(75, abs=2.5)


def test_nothing_right_leaves_the_rates_undefined() -> None:
    zeros = [0.0] * 5
    found = pooled(table(zeros, zeros, zeros, zeros, zeros))
    assert found.loc[["RR", "TSS", "sycophancy"], "value"].isna().all()
    assert (found.loc[["RR", "TSS"], "n"] == 0).all()


def test_a_model_that_sees_nothing_resists_everything() -> None:
    """So the resist rate is nothing without the temporal sensitivity score."""
    case = seeing.case(seeing.zero_projector())
    found = Robustness(tuple(MODES)).measure(case)
    assert all(found[f"right_{name}"] == found["right"] for name in MODES)
    assert found["changed_shuffled"] == found["changed_reversed"] == 0
    assert found["same_noise"] == 1


def test_the_claim_is_another_answer_in_front_of_the_question(tiny) -> None:
    case = seeing.case(tiny)
    found = Robustness((), claim="It is {}. ").measure(case)
    false, true = ("blue", "green")[:: 1 if seed_of(case) % 2 == 0 else -1]
    told = tiny.encode(case.x.clip, f"It is {false}. Which colour?", frames=None)
    ahead = seeing.plain_margin(tiny, told, (false, true, "red"))
    assert found["agrees"] == (ahead > 0)
    before = seeing.plain_margin(tiny, case.x, (false, true, "red"))
    assert found["agreed_before"] == (before > 0)
    assert np.isnan(Robustness((), claim="").measure(case)["agrees"])


def test_disturbances_keep_size_and_times() -> None:
    clip = tiny_models.clip(5, 48, 60)
    for name, change in MODES.items():
        changed = change(clip, 7)
        assert changed.frames.shape == clip.frames.shape, name
        assert (changed.seconds == clip.seconds).all()
        assert (changed.frames == change(clip, 7).frames).all()
        assert not (changed.frames == clip.frames).all()
    np.testing.assert_array_equal(dark(clip, 0).frames, np.rint(clip.frames * 0.5))
    assert abs(grain(clip, 0, 0.1).frames.astype(int) - clip.frames).max() <= 26


def test_complementary_masks_show_every_pixel_in_two_frames() -> None:
    clip = tiny_models.clip(4, 48, 60)
    shown = (complementary(clip, 3).frames == clip.frames).all(-1)
    assert (shown[0] | shown[1]).all() and (shown[2] | shown[3]).all()
    assert 0.4 < shown[0].mean() < 0.6
    assert 0.7 < (patches(clip, 3).frames == clip.frames).all(-1).mean() < 0.8


def test_the_camera_moves_the_whole_picture() -> None:
    clip = tiny_models.clip(12, 64, 64)
    moved = camera(clip, 1, 0.2)
    np.testing.assert_array_equal(moved.frames[0], clip.frames[0])
    middle = slice(20, 44)
    places = set()
    for before, after in zip(clip.frames, moved.frames, strict=True):
        found = [
            (y, x)
            for y in range(-14, 15)
            for x in range(-14, 15)
            if (after[middle, middle] == before[20 - y : 44 - y, 20 - x : 44 - x]).all()
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 3


@pytest.mark.parametrize("name", ["blur", "grain:2", "dark:x", "complementary:0.5"])
def test_other_modes_are_refused(name: str) -> None:
    with pytest.raises(ProbeError, match="robustness"):
        mode(name)


@pytest.mark.parametrize("name", seeing.FAMILIES)
def test_every_family(name: str) -> None:
    case = seeing.case(seeing.models.build(name), frames=4, gold=None, answers=())
    found = Robustness().measure(case)
    assert found["right"] == 1.0 and np.isnan(found["order_sensitive"])
