"""Cuts between frames, against their definitions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score, Segment
from probe.ablate.reduction.segment_cluster import NearestEarlier
from probe.ablate.reduction.segment_time import EMA, DySeg, Leader, SceneTilling


def clip(seed: int, time: int = 9, rows: int = 2, cols: int = 3, channels: int = 4) -> Candidates:
    """Features that walk from frame to frame, so that neighbours are alike."""
    steps = torch.randn(time, rows, cols, channels, generator=torch.Generator().manual_seed(seed))
    return Candidates.grid(steps.cumsum(0))


def frames(c: Candidates, segment: Segment) -> list[list[int]]:
    """Frames of each group, where groups are whole frames."""
    groups = segment.groups(c)
    found = [np.unique(c.frame[group]).tolist() for group in groups]
    assert [len(g) for g in groups] == [sum(len(c.frames[t]) for t in f) for f in found]
    return found


def test_scene_tilling_against_the_definition():
    c = clip(8, time=30)
    means = c.frame_means().double()
    s = torch.cosine_similarity(means[:-1], means[1:])

    def peak(i: int, step: int) -> float:
        while 0 <= i + step < len(s) and s[i + step] >= s[i]:
            i += step
        return float(s[i])

    depth = np.array([peak(i, -1) + peak(i, 1) - 2 * float(s[i]) for i in range(29)])
    cuts = np.flatnonzero(depth > depth.mean() + 0.5 * depth.std(ddof=1)) + 1
    assert len(cuts) > 2
    assert sorted(SceneTilling().cuts(c)) == cuts.tolist()
    deepest = np.argsort(-depth)[:2] + 1
    assert set(SceneTilling(most=2).cuts(c)) == set(deepest.tolist())
    assert set(SceneTilling(deepest=2).cuts(c)) == set(deepest.tolist())


def test_dyseg_cuts():
    c = clip(4)
    means = c.frame_means().double()
    s = torch.cosine_similarity(means[:-1], means[1:]).numpy()
    expected = {*np.argsort(s)[:3].tolist(), *np.flatnonzero(s < np.sort(s)[4]).tolist()}
    assert len(expected) == 4
    cuts = DySeg(count=4, tau=float(np.sort(s)[3:5].mean())).cuts(c)
    assert set(cuts) == {i + 1 for i in expected}


def test_ema_by_hand():
    """Frames turn by the angles whose cosines are given; one place, so means are the cosines."""
    angle = np.array([0.0, 0.3, 0.6, 1.2, 1.3, 1.35])
    x = torch.tensor(np.stack([np.cos(angle), np.sin(angle)], 1)).reshape(6, 1, 1, 2)
    c = Candidates.grid(x)
    mean, first, cuts = 1.0, 0, []
    for t in range(1, 6):
        mean = 0.9 * np.cos(angle[t] - angle[first]) + 0.1 * mean
        if mean < 0.8:
            mean, first = 1.0, t
            cuts.append(t)
    assert cuts == [3]
    assert EMA(tau=0.8).cuts(c) == cuts
    assert EMA(tau=0.84, reference="previous").cuts(c) == [3]
    assert EMA(tau=-2, longest=2).cuts(c) == [2, 4]


def test_ema_is_the_mean_over_places():
    """Places that turn in opposite directions leave the frame's mean as it is."""
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    x = torch.stack([a, a.flip(0)]).reshape(2, 1, 2, 2)
    assert EMA(tau=0.5).cuts(Candidates.grid(x)) == [1]
    assert Leader().cuts(Candidates.grid(x)) == []


def test_leader_compares_with_the_first_frame():
    angle = np.arange(6) * 0.2
    x = torch.tensor(np.stack([np.cos(angle), np.sin(angle)], 1)).reshape(6, 1, 1, 2)
    c = Candidates.grid(x)
    assert Leader(tau=1 - np.cos(0.45)).cuts(c) == [3]
    assert Leader(tau=1 - np.cos(0.45), longest=2).cuts(c) == [2, 4]
    assert Leader(tau=-1e-6).cuts(c) == [1, 2, 3, 4, 5] and Leader(tau=-1e-6).inert


def test_nearest_earlier_goes_on_to_the_first():
    """Frame 2 is most like frame 1, which is most like frame 0."""
    angle = np.array([0.0, 0.5, 0.9, 3.0])
    x = torch.tensor(np.stack([np.cos(angle), np.sin(angle)], 1)).reshape(4, 1, 1, 2)
    tau = (np.cos(0.6) + 1) / 2
    assert frames(Candidates.grid(x), NearestEarlier(tau=tau)) == [[0, 1, 2], [3]]
    back = Candidates.grid(x[[0, 3, 1]])
    assert frames(back, NearestEarlier(tau=tau)) == [[0, 2], [1]]


@dataclass(frozen=True)
class Read(Score):
    """Stands for what reads vectors elsewhere."""


@pytest.mark.parametrize(
    "segment",
    [DySeg(3, 0.5, features=Read()), EMA(tau=0.8, features=Read()), Leader(0.4, features=Read())],
)
def test_features_that_were_read_elsewhere(segment: Segment):
    """Cuts are those of a clip whose features are what was read."""
    here, there = clip(0), clip(1)
    read = replace(here, readings={Read(): there.x})
    plain = replace(segment, features=None)
    assert frames(read, segment) == frames(there, plain) != frames(here, plain)
    assert segment.leaves() == (Read(),) and plain.leaves() == ()
    for wrong in ({}, {Read(): there.x[:, 0]}):
        with pytest.raises(ProbeError, match="reads no vector for each token"):
            segment.groups(replace(here, readings=wrong))
