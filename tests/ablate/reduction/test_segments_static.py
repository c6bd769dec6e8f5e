"""Places along time: every segmentation by brute force, runs by a loop."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Segment
from probe.ablate.reduction.segment_static import MaxStatic, PlaceRuns, along_time, best_cuts


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


@pytest.mark.parametrize("longest", [1, 2, 3, 99])
@pytest.mark.parametrize("time", [1, 2, 7, 10])
def test_max_static_against_every_segmentation(time: int, longest: int):
    generator = np.random.default_rng(time)
    for _ in range(20):
        same = generator.random((time - 1, 5)) < 0.7

        def gain(cuts: tuple[int, ...], same=same) -> float:
            edges = [0, *cuts, time]
            total = 0
            for a, b in pairwise(edges):
                if b - a > longest:
                    return -1
                total += int(same[a : b - 1].all(0).sum()) * (b - a - 1)
            return total

        every = [cuts for size in range(time) for cuts in combinations(range(1, time), size)]
        assert len(every) == 2 ** (time - 1)
        assert gain(tuple(best_cuts(same, longest))) == max(map(gain, every))


def test_max_static_leaves_frames_alone_where_nothing_is_static():
    c = clip(3)
    assert frames(c, MaxStatic(tau=1)) == [[t] for t in range(9)]
    assert MaxStatic(tau=1).inert and not MaxStatic(tau=0.8).inert


@pytest.mark.parametrize("seed", range(4))
def test_place_runs_against_a_loop(seed: int):
    c, tau = clip(seed), 0.5
    x = c.x.reshape(9, 6, 4).double()
    expected = []
    for place in range(6):
        run = [place]
        for t in range(1, 9):
            if torch.cosine_similarity(x[t, place], x[t - 1, place], dim=0) >= tau:
                run.append(t * 6 + place)
            else:
                expected.append(run)
                run = [t * 6 + place]
        expected.append(run)
    found = [group.tolist() for group in PlaceRuns(tau=tau).groups(c)]
    assert sorted(found) == sorted(expected)


def test_place_runs_after_a_reduction_and_with_newlines():
    frame = torch.randn(1, 1, 3, 4, generator=torch.Generator().manual_seed(2))
    c = Candidates.grid(frame.expand(3, 1, 3, 4))
    assert [g.tolist() for g in PlaceRuns().groups(c)] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    left = c.take(np.array([0, 1, 3, 5, 7, 8]))
    assert [g.tolist() for g in PlaceRuns().groups(left)] == [[0, 2], [1, 4], [3, 5]]
    row = np.where(c.col == 2, -1, c.row)
    lines = Candidates(c.x, c.frame, row, c.col, c.position, c.mass)
    assert sorted(map(len, PlaceRuns().groups(lines))) == [1, 1, 1, 3, 3]


def test_place_runs_joins_at_most_a_share_the_most_alike_first():
    c = clip(0)
    before = {int(t * 6 + p): v for (t, p), v in np.ndenumerate(along_time(c))}
    best = sorted(before, key=lambda token: -before[token])[:10]
    groups = PlaceRuns(tau=-1, share=10 / len(c)).groups(c)
    joined_tokens = sorted(int(token) - 6 for group in groups for token in group[1:])
    assert joined_tokens == sorted(best)
    assert PlaceRuns(tau=-1, share=0).inert
    assert all(len(group) == 1 for group in PlaceRuns(tau=-1, share=0).groups(c))
