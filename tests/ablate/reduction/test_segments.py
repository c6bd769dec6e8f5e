"""Segmentations: partitions, seams, scale; windows and tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Segment
from probe.ablate.reduction.segment import (
    Fixed,
    PerFrame,
    PerPiece,
    SameSegments,
    Tiles,
    Whole,
    joined,
)
from probe.ablate.reduction.segment_cluster import DPCFrames, NearestEarlier
from probe.ablate.reduction.segment_static import MaxStatic, PlaceRuns
from probe.ablate.reduction.segment_time import EMA, DySeg, Leader, SceneTilling

IN_TIME = [
    SceneTilling(),
    SceneTilling(deepest=2),
    DySeg(count=3, tau=0.3),
    EMA(tau=0.5),
    EMA(tau=0.5, reference="previous"),
    Leader(tau=0.6, longest=4),
    MaxStatic(tau=0.3),
    DPCFrames(ratio=0.5, k=3),
    Fixed(window=3),
    PerFrame(),
    Whole(),
]
OTHERS = [NearestEarlier(tau=0.55), PlaceRuns(tau=0.3), Tiles(2, 2), Tiles(length=5)]


def clip(seed: int, time: int = 9, rows: int = 2, cols: int = 3, channels: int = 4) -> Candidates:
    """Features that walk from frame to frame, so that neighbours are alike."""
    steps = torch.randn(time, rows, cols, channels, generator=torch.Generator().manual_seed(seed))
    return Candidates.grid(steps.cumsum(0))


def two_clips(first: int, second: int) -> Candidates:
    """Two constant clips, joined."""
    a, b = torch.randn(2, 1, 2, 3, 4, generator=torch.Generator().manual_seed(5))
    return Candidates.grid(torch.cat([a.expand(first, 2, 3, 4), b.expand(second, 2, 3, 4)]))


def frames(c: Candidates, segment: Segment) -> list[list[int]]:
    """Frames of each group, where groups are whole frames."""
    groups = segment.groups(c)
    found = [np.unique(c.frame[group]).tolist() for group in groups]
    assert [len(g) for g in groups] == [sum(len(c.frames[t]) for t in f) for f in found]
    return found


def scaled(c: Candidates) -> Candidates:
    """Every frame times a number of its own."""
    factor = torch.tensor([3.0, 0.1, 7.0])[torch.as_tensor(c.frame % 3)]
    return Candidates(c.x * factor[:, None], c.frame, c.row, c.col, c.position, c.mass)


@pytest.mark.parametrize("segment", [*IN_TIME, *OTHERS], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_partition(segment: Segment, seed: int):
    c = clip(seed)
    groups = segment.groups(c)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(c)))
    assert all(len(group) and (np.diff(group) > 0).all() for group in groups)


@pytest.mark.parametrize("segment", IN_TIME, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_contiguous(segment: Segment, seed: int):
    assert [t for group in frames(clip(seed), segment) for t in group] == list(range(9))


@pytest.mark.parametrize("segment", [*IN_TIME[:7], *OTHERS[:2]], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_scale(segment: Segment, seed: int):
    c = clip(seed)
    c = Candidates(c.x.double(), c.frame, c.row, c.col, c.position, c.mass)
    pairs = zip(segment.groups(c), segment.groups(scaled(c)), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "segment",
    [
        SceneTilling(),
        DySeg(count=1),
        EMA(longest=99),
        Leader(),
        MaxStatic(),
        DPCFrames(),
        NearestEarlier(),
    ],
    ids=str,
)
def test_identical_frames_are_one_group(segment: Segment):
    frame = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(1))
    c = scaled(Candidates.grid(frame.expand(12, 2, 3, 4).double()))
    if isinstance(segment, DPCFrames):
        c = Candidates.grid(frame.expand(12, 2, 3, 4))
    assert len(segment.groups(c)) == 1


@pytest.mark.parametrize("first", range(2, 7))
@pytest.mark.parametrize(
    "segment",
    [
        SceneTilling(),
        SceneTilling(deepest=1),
        DySeg(count=2),
        DySeg(count=1),
        EMA(longest=99),
        EMA(longest=99, reference="previous"),
        Leader(),
        MaxStatic(),
        DPCFrames(),
        NearestEarlier(),
    ],
    ids=str,
)
def test_the_cut_is_at_the_seam(segment: Segment, first: int):
    c = two_clips(first, 8 - first)
    assert frames(c, segment) == [list(range(first)), list(range(first, 8))]


@pytest.mark.parametrize("segment", [Whole(), PerFrame(), Fixed(4), Tiles(length=7)], ids=str)
def test_sizes_are_those_of_the_groups(segment: Segment):
    c = clip(0)
    assert segment.sizes((6,) * 9, len(c)) == [len(group) for group in segment.groups(c)]


def test_windows_and_tiles():
    c = clip(0, time=6, rows=4, cols=5)
    assert frames(c, Fixed(4)) == [[0, 1, 2, 3], [4, 5]]
    tiles = Tiles(3, 3).groups(c)
    assert [len(tile) for tile in tiles] == [9, 6, 3, 2] * 6
    assert tiles[0].tolist() == [0, 1, 2, 5, 6, 7, 10, 11, 12]
    runs = Tiles(length=50).groups(c)
    assert [(run[0], run[-1]) for run in runs] == [(0, 49), (50, 99), (100, 119)]


def test_tiles_of_newlines_are_apart():
    c = clip(0, time=2, rows=2, cols=3)
    col = np.where(c.col == 2, -1, c.col)
    c = Candidates(c.x, c.frame, c.row, col, c.position, c.mass)
    assert sorted(map(len, Tiles(2, 2).groups(c))) == [2, 2, 4, 4]


def test_the_last_segmentation():
    c = clip(0, time=4)
    segment, piece = c.frame // 2, c.col == 1
    c = Candidates(c.x, c.frame, c.row, c.col, c.position, c.mass, segment, piece.astype(np.int64))
    assert frames(c, SameSegments()) == [[0, 1], [2, 3]]
    groups = PerPiece().groups(c)
    assert [(segment[g[0]], piece[g[0]], len(g)) for g in groups] == [
        (0, 0, 8), (0, 1, 4), (1, 0, 8), (1, 1, 4),
    ]  # fmt: skip


def test_joined_sorts_and_covers():
    c = clip(0, time=4)
    assert [len(group) for group in joined(c, [3, 1, 3])] == [6, 12, 6]


@pytest.mark.parametrize(
    ("segment", "says"),
    [
        (DySeg(count=10), "9 frames cannot be 10 groups"),
        (DySeg(count=0), "whole number from 1"),
        (Fixed(0), "window=0"),
        (Tiles(2), "give height= and width="),
        (Tiles(2, 2, 2), "or length= alone"),
        (SceneTilling(deepest=9), "9 frames have 8"),
        (EMA(reference="last"), "first"),
        (EMA(longest=0), "longest=0"),
        (Leader(longest=0), "longest=0"),
        (MaxStatic(longest=0), "longest=0"),
        (DPCFrames(ratio=0), "ratio=0"),
        (PlaceRuns(share=2), "share=2"),
    ],
    ids=str,
)
def test_refused(segment: Segment, says: str):
    with pytest.raises(ProbeError, match=says) as error:
        segment.groups(clip(0))
    assert "\n" not in str(error.value)


def test_places_cannot_be_followed_after_a_reduction():
    left = clip(0).take(np.arange(1, 54))
    for segment in (MaxStatic(), EMA()):
        with pytest.raises(ProbeError, match="same places"):
            segment.groups(left)
