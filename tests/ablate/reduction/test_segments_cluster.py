"""Clusters of frames against plain loops, and their repair by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.segment_cluster import DPCFrames, mended, peaks


def loops(far: np.ndarray, count: int, k: int) -> list[int]:
    """Density-peak clustering as it is described, an element at a time."""
    n = len(far)
    density = [math.exp(-sum(sorted(far[i])[m] ** 2 for m in range(k)) / k) for i in range(n)]
    gap = []
    for i in range(n):
        denser = [j for j in range(n) if (density[j], -j) > (density[i], -i)]
        gap.append(min((far[i][j] for j in denser), default=far.max()))
    centres = sorted(range(n), key=lambda i: (-gap[i] * density[i], i))[:count]
    found = []
    for i in range(n):
        nearest = min(range(count), key=lambda m: far[i][centres[m]])
        found.append(centres.index(i) if i in centres else nearest)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_peaks_against_loops(seed: int):
    x = np.random.default_rng(seed).normal(size=(12, 3))
    far = np.linalg.norm(x[:, None] - x[None], axis=-1)
    assert peaks(far, 4, 5).tolist() == loops(far, 4, 5)


def test_as_many_clusters_as_frames():
    x = np.random.default_rng(0).normal(size=(6, 3))
    far = np.linalg.norm(x[:, None] - x[None], axis=-1)
    assert sorted(peaks(far, 6, 3).tolist()) == list(range(6))


@pytest.mark.parametrize(
    ("clusters", "expected"),
    [
        ([0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]),  # a single frame joins the longer side
        ([0, 0, 1, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1]),  # short runs go to the longer neighbour
        ([0, 0, 2, 1, 1], [0, 0, 0, 1, 1]),  # a tie goes to the left
        ([0, 1, 0, 1], [0, 0, 0, 0]),  # single frames everywhere: one group
        ([1, 1, 0, 0], [1, 1, 0, 0]),  # nothing to mend
        ([2, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1]),  # at the border
        ([0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0]),  # two longest runs both stay
        ([3, 4, 0, 0, 0], [0, 0, 0, 0, 0]),  # several at once
    ],
)
def test_mended(clusters: list[int], expected: list[int]):
    assert mended(np.array(clusters)).tolist() == expected


def test_shots_are_found():
    """Three shots of frames alike; int(16 * 0.2) is 3 clusters."""
    generator = torch.Generator().manual_seed(3)
    shots = torch.randn(3, 1, 2, 2, 8, generator=generator)
    lengths = (6, 4, 6)
    x = torch.cat([s.expand(n, 2, 2, 8) for s, n in zip(shots, lengths, strict=True)])
    x = x + 1e-3 * torch.randn(x.shape, generator=generator)
    assert DPCFrames(ratio=0.2).cuts(Candidates.grid(x)) == [6, 10]
    assert {6, 10} < set(DPCFrames(ratio=0.25).cuts(Candidates.grid(x)))
