"""Which tokens show the evidence, against counting pixels of a picture drawn larger."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import probe
from probe import testbed
from probe.diagnose import case_of
from probe.errors import ProbeError
from probe.models.layout import Layout
from probe.testbed import evidence
from probe.testbed.scene import Scene
from tests import tiny as tiny_models
from tests.tiny import clip, example

TYPES = ["color", "order", "count", "existence"]


@cache
def item(number: int, split: str = "neutral"):
    return testbed.items(split, n=8, seed=3, types=TYPES[:2] if split == "hidden" else TYPES)[
        number
    ]


@cache
def layout(name: str, frames: int = 16, number: int = 0) -> Layout:
    return case_of(probe.load(f"testbed/{name}"), item(number), frames).x.layout


def counted(of: Layout, boxes, scene: Scene, times: int) -> np.ndarray:
    """[position], by counting the pixels of every cell in frames drawn `times` as large."""
    share = np.zeros(len(of))
    side = scene.size * times
    grid = of.clips[0].grid
    edges = [np.rint(e * side).astype(int) for e in (grid.row_edges, grid.col_edges)]
    np.testing.assert_allclose(edges, np.array([grid.row_edges, grid.col_edges]) * side, atol=1e-9)
    for p in np.flatnonzero(of.role == "video"):
        parts = []
        (y0, y1), (x0, x1) = edges[0][of.row[p]], edges[1][of.col[p]]
        for frame in of.frames[of.group[p]]:
            picture = np.zeros((side, side), bool)
            for when, box in boxes:
                left, top, right, bottom = (edge * times for edge in box)
                if when == of.source_frame[frame]:
                    picture[top:bottom, left:right] = True
            parts.append(picture[y0:y1, x0:x1].mean())
        share[p] = np.mean(parts)
    return share


@pytest.mark.parametrize(("name", "frames"), [("onevision", 16), ("onevision", 7), ("qwen", 12)])
def test_shares_are_counted_pixels(name: str, frames: int) -> None:
    """Also with two frames a token, and with fewer frames than the scene has."""
    of, one = layout(name, frames, 1), item(1)
    assert len(of.frames) == (frames if name == "onevision" else frames // 2)
    for boxes in (one.question.evidence, evidence.boxes(one.scene)):
        found = evidence.covered(of, boxes, one.scene)
        np.testing.assert_allclose(found, counted(of, boxes, one.scene, 1), atol=1e-8)
    assert found.max() > 0.9


def test_boxes_over_each_other_count_once_and_edges_inside_pixels(tiny) -> None:
    """3 x 3 cells of 99 pixels, whose edges are at 39.6 and 79.2."""
    other = tiny_models.build(tiny_models.ODD, seed=3)
    shown = clip(4, 99, 99)
    x = example(other, replace(shown, source_frames=np.arange(4)))
    assert x.layout.grid == (3, 3)
    scene = replace(item(0).scene, frames=4, size=99)
    boxes = ((0, (0, 0, 50, 50)), (0, (30, 30, 60, 60)), (2, (70, 20, 99, 41)))
    found = evidence.covered(x.layout, boxes, scene)
    np.testing.assert_allclose(found, counted(x.layout, boxes, scene, 5), atol=1e-8)
    assert set(np.unique(x.layout.group[found > 0])) == {0, 2}


def test_what_counts_as_evidence() -> None:
    of, one = layout("onevision", 16, 0), item(0)
    found = evidence.shown(of, one)
    np.testing.assert_array_equal(found.touched, found.share > 0)
    assert set(np.flatnonzero(found.share >= 0.25)) <= set(np.flatnonzero(found.evidence))
    assert np.all(found.touched[found.evidence]) and np.all(found.things[found.evidence])
    frames = {frame for frame, _ in one.question.evidence}
    assert set(of.source_frame[np.unique(of.group[found.evidence])]) == frames
    strict = evidence.shown(of, one, least=1.0)  # no cell is covered wholly in some frames
    assert set(of.source_frame[np.unique(of.group[strict.evidence])]) == frames
    assert strict.evidence.sum() < found.evidence.sum()
    painted = of.paint(np.where(found.evidence, 1.0, 0.0))
    for frame, (x0, y0, x1, y1) in one.question.evidence:
        assert painted[frame, (y0 + y1) // 2, (x0 + x1) // 2] == 1


def test_nothing_is_evidence_where_nothing_can_be_seen() -> None:
    hidden = item(0, "hidden")
    found = evidence.shown(layout("onevision"), hidden)
    assert not hidden.question.evidence and not found.evidence.any() and not found.share.any()


def test_tokens_without_a_place_stand_for_their_frame() -> None:
    of, one = layout("onevision"), item(0)
    loose = replace(of, row=np.full(len(of), -1), col=np.full(len(of), -1))
    found = evidence.covered(loose, one.question.evidence, one.scene)
    placed = evidence.covered(of, one.question.evidence, one.scene)
    for group in range(16):
        here = (of.group == group) & (of.role == "video")
        np.testing.assert_allclose(found[here], placed[here].mean())


def test_what_is_refused(tiny) -> None:
    one = item(0)
    with pytest.raises(ProbeError, match="no clip 1"):
        evidence.shown(layout("onevision"), one, clip=1)
    with pytest.raises(ProbeError, match="has no clip 0"):
        evidence.shown(example(tiny, None).layout, one)
    with pytest.raises(ProbeError, match="is it the clip of this item"):
        evidence.shown(example(tiny, clip(9)).layout, one)  # every third frame of 27
