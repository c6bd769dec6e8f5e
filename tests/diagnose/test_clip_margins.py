"""Margins over other clips: equal to plain forward passes, shared, and zero where they must be."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probe.diagnose import ClipMargins
from probe.diagnose.counterfactual import KINDS, clip_of, seed_of, seen, wrong
from probe.errors import ProbeError
from probe.video import Clip
from tests.diagnose import seeing
from tests.families import models


def again(case, frames: np.ndarray):
    """The case's question over these frames, encoded from the beginning."""
    clip = Clip.from_array(np.ascontiguousarray(frames), case.x.clip.seconds[: len(frames)])
    return case.model.encode(clip, case.x.question, frames=None)


def test_margins_are_those_of_plain_forward_passes(tiny) -> None:
    case = seeing.case(tiny)
    found = ClipMargins(("blank", "reversed", "single", "frozen")).measure(case)
    frames = case.x.clip.frames
    clips = {
        "": frames,
        "_reversed": frames[::-1],
        "_blank": np.full_like(frames, round(float(frames.mean()))),
        "_frozen": np.repeat(frames[3:4], len(frames), axis=0),
    }
    for name, shown in clips.items():
        expected = seeing.plain_margin(tiny, again(case, shown))
        assert found[f"margin{name}"] == pytest.approx(expected, abs=1e-4), name
        assert found[f"right{name}"] == (expected > 0)
    single = tiny.encode(frames[3:4], "Which colour?", seconds=case.x.clip.seconds[3:4])
    assert found["margin_single"] == pytest.approx(seeing.plain_margin(tiny, single), abs=1e-4)
    blind = tiny.encode(None, "Which colour?")
    assert found["margin_blind"] == pytest.approx(seeing.plain_margin(tiny, blind), abs=1e-4)


def test_a_model_to_which_all_clips_look_the_same_loses_nothing() -> None:
    found = ClipMargins(("blank", "wrong", "shuffled", "reversed", "frozen", "noise")).measure(
        seeing.case(seeing.zero_projector())
    )
    for name, value in found.items():
        if name.startswith("margin_") and name != "margin_blind":
            assert value == pytest.approx(found["margin"], abs=1e-5), name


def test_every_clip_runs_once(tiny) -> None:
    case = seeing.case(tiny)
    first = {kind: seen(case, kind) for kind in KINDS}
    assert all(seen(case, kind) is run for kind, run in first.items())
    assert seen(case, "shuffled", draw=1) is not first["shuffled"]


def test_cases_draw_differently_and_the_same_again(tiny) -> None:
    one, other = seeing.case(tiny), seeing.case(tiny, id="two")
    assert seed_of(one) == seed_of(seeing.case(tiny)) != seed_of(other)
    orders = [clip_of(c, c.x.clip, "shuffled").source_frames.tolist() for c in (one, other)]
    assert orders[0] != orders[1]


def test_the_wrong_clip_has_the_size_of_the_right_one(tiny, videos) -> None:
    case = seeing.case(tiny)
    made = wrong(case, case.x.clip)
    assert made.frames.shape == case.x.clip.frames.shape
    assert not (made.frames == case.x.clip.frames).all()
    recorded = wrong(case, case.x.clip, str(sorted(videos.glob("*.mp4"))[0]))
    assert recorded.frames.shape == case.x.clip.frames.shape
    with pytest.raises(ProbeError, match=r"absent\.mp4"):
        ClipMargins(("wrong",), wrong="absent.mp4").measure(case)


def test_retained_is_the_ratio_of_means() -> None:
    table = pd.DataFrame(
        {
            "sample": ["a", "b", "c"],
            "video": ["a", "b", "c"],
            "margin": [4.0, 6.0, 2.0],
            "margin_blind": [1.0, 0.0, 2.0],
            "margin_shuffled": [2.0, 3.0, np.nan],
        }
    )
    pooled = ClipMargins(("shuffled",)).pool(table).set_index("name")
    row = pooled.loc["retained_shuffled"]
    assert row["value"] == pytest.approx((1 + 3) / (3 + 6))
    assert row["n"] == 2 and row["low"] <= row["value"] <= row["high"]
    assert pooled.loc["margin", "value"] == 4.0
    table["margin_blind"] = table["margin"] + 1  # the clip is worth less than none
    assert np.isnan(ClipMargins(("shuffled",)).pool(table).set_index("name").loc[row.name, "value"])


def test_one_frame_has_one_order(tiny) -> None:
    found = ClipMargins().measure(seeing.case(tiny, frames=1))
    assert np.isnan(found["margin_shuffled"]) and np.isnan(found["right_reversed"])
    assert found["margin_single"] == pytest.approx(found["margin"], abs=1e-5)


def test_an_unknown_clip_is_refused(tiny) -> None:
    with pytest.raises(ProbeError, match='no clip "upside"; there are blank'):
        ClipMargins(("upside",)).measure(seeing.case(tiny))


@pytest.mark.parametrize("name", seeing.FAMILIES)
def test_every_family(name: str) -> None:
    model = models.build(name)
    case = seeing.case(model, frames=4, gold=None, answers=())
    found = ClipMargins().measure(case)
    assert np.isfinite(found["margin_wrong"])
    assert np.isnan(found["margin_blind"]) == model.family.needs_clip
