"""Occlusion against single runs, each with its own knockout."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import probe
from probe import testbed
from probe.ablate import Knockout
from probe.diagnose import Case, OcclusionMap, case_of
from probe.diagnose.importance import knockouts
from probe.diagnose.importance.knockouts import knocked_out
from probe.diagnose.importance.occlusion import blocks
from probe.errors import ProbeError
from probe.models.video_model import VideoModel
from tests.families import models
from tests.tiny import example


def alone(model: VideoModel, x, sets) -> np.ndarray:
    """[1 + set, vocab], by a run for each."""
    lists = [[], *([Knockout((positions, "text"))] for positions in sets)]
    return np.stack([model.run(x, ablate=one).logits[0] for one in lists])


def test_single_tokens_are_runs_of_their_own(pair, monkeypatch) -> None:
    """Every video token by itself, also with eager attention; in one batch and in several."""
    model, eager = pair
    x = example(model)
    video = x.layout.select("video")
    sets = [video[n : n + 1] for n in range(len(video))] + [video, video[::3]]
    expected = alone(model, x, sets)
    for some in (model, eager):
        np.testing.assert_allclose(knocked_out(some, x, sets), expected, atol=2e-5)
    monkeypatch.setattr(knockouts, "ROWS", 1)
    np.testing.assert_allclose(knocked_out(model, x, sets[:5]), expected[:6], atol=2e-5)
    made = Case(model, x, "r", ("r", "b"))
    margins = expected[:, made.first("r")] - expected[:, made.first("b")]
    fall = margins[0] - margins[1 : len(video) + 1]
    assert np.ptp(fall) > 1e-3
    for of, values in (("margin", fall), ("absolute", np.abs(fall))):
        found = OcclusionMap(of, cells=1, frames=1).scores(made)
        np.testing.assert_allclose(found, values, atol=5e-5)
    p = np.exp(expected - expected.max(-1, keepdims=True)).astype(np.float64)
    p /= p.sum(-1, keepdims=True)
    change = np.abs(p[1 : len(video) + 1] - p[0]).sum(-1) / 2
    found = OcclusionMap("change", cells=1, frames=1).scores(made)
    np.testing.assert_allclose(found, change, atol=1e-5)


FEW = ("instructblipvideo", "internvl", "qwen2_5_vl", "qwen3_vl")  # each treats tokens its own way


@pytest.mark.parametrize(
    "name",
    [n if n in FEW else pytest.param(n, marks=pytest.mark.full) for n in models.NAMES],
)
def test_in_every_family(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    video = x.layout.select("video")
    sets = [video[:1], video[len(video) // 2 :], video]
    np.testing.assert_allclose(knocked_out(model, x, sets), alone(model, x, sets), atol=5e-5)


def test_blocks_are_neighbours(tiny: VideoModel) -> None:
    layout = example(tiny).layout  # 5 frames of 2 x 2
    np.testing.assert_array_equal(blocks(layout, 1, 1), np.arange(20))
    np.testing.assert_array_equal(blocks(layout, 2, 1), np.repeat(np.arange(5), 4))
    expected = [n % 4 + 4 * (n // 4 // 3) for n in range(20)]
    np.testing.assert_array_equal(blocks(layout, 1, 3), expected)
    merged = models.example(models.build("qwen2_5_vl")).layout
    assert max(len(frames) for frames in merged.frames) == 2
    group = merged.group[merged.select("video")]
    np.testing.assert_array_equal(blocks(merged, 99, 2), group)  # frames are those given
    np.testing.assert_array_equal(blocks(merged, 99, 4), group // 2)


@cache
def item_case() -> Case:
    model = probe.load("testbed/onevision")
    return case_of(model, testbed.items("neutral", n=1, seed=3, types=["color"])[0])


def test_the_sum_of_a_sweep_on_the_testbed() -> None:
    """Blocks of 3 x 3 cells in all frames: a sweep's margins."""
    case = item_case()
    number = blocks(case.x.layout, 3, 16)
    assert set(number) == {0, 1, 2, 3}
    lists = [Knockout((case.video_tokens[number == n], "text")) for n in range(4)]
    value = case.sweep(lists)["value"].to_numpy(float)
    found = OcclusionMap(cells=3, frames=16).scores(case)
    np.testing.assert_allclose(found, (value[0] - value[1:])[number], atol=1e-4)


def test_maps_with_the_same_blocks_share(tiny: VideoModel, monkeypatch) -> None:
    made = Case(tiny, example(tiny), "r", ("r", "b"))
    first = OcclusionMap("margin").scores(made)
    monkeypatch.setattr("probe.diagnose.importance.occlusion.knocked_out", None)
    np.testing.assert_array_equal(OcclusionMap("absolute").scores(made), np.abs(first))


def test_what_is_refused(tiny: VideoModel) -> None:
    made = Case(tiny, example(tiny), "r", ("r", "b"))
    with pytest.raises(ProbeError, match="there are margin, absolute, change"):
        OcclusionMap("logit").scores(made)
    with pytest.raises(ProbeError, match="at least 1"):
        OcclusionMap(cells=0).scores(made)
