"""Segmentations that follow places along time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

from probe.ablate.reduction.budget_layers import affordable, settled
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Index, Segment
from probe.ablate.reduction.segment import joined, positive
from probe.ablate.reduction.segment_time import cosines
from probe.errors import ProbeError


@dataclass(frozen=True)
class MaxStatic(Segment):
    """The segmentation with the most tokens that can be collapsed (HoliTom, arXiv 2505.21334).

    A place is static in a group of frames where the cosine with the next frame is above tau all
    along. A group gains (frames - 1) for each static place; dynamic programming finds the
    greatest total. Ties go to the shorter last group, and to single frames.

    Attributes:
        tau: cosine above which a place stays the same.
        longest: frames of a group at most.
    """

    tau: float = 0.8
    longest: int = 1024

    @property
    def inert(self) -> bool:
        return self.tau >= 1 or self.longest == 1

    def groups(self, c: Candidates) -> list[Index]:
        positive(self, "longest", self.longest)
        return joined(c, best_cuts(along_time(c) > self.tau, self.longest))


@dataclass(frozen=True)
class PlaceRuns(Segment):
    """Each place followed along time: a token joins the token of its place in the nearest earlier
    frame that has one while they are alike, so that a group is a run of one place (FrameFusion,
    arXiv 2501.01986).

    Frames need not have the same places, so it can be repeated. A token without a cell (a newline)
    joins none.

    Attributes:
        tau: cosine from which a token joins.
        share: at most this share of the tokens joins, the most alike first.
        cost, layers: in place of `share`: as many as bring the sum over layers down to this share
            of what it is without reduction; see `CostTarget`.
        until: once less than this share joined at a site, none joins after it.
    """

    tau: float = 0.6
    share: float = 1.0
    cost: float | None = None
    layers: int = 28
    until: float | None = None

    @property
    def inert(self) -> bool:
        return self.tau > 1 or self.share == 0

    def groups(self, c: Candidates) -> list[Index]:
        if not 0 <= self.share <= 1:
            raise ProbeError(f"place_runs: share={self.share}; it is a fraction from 0 to 1")
        share = self.share
        if self.cost is not None:
            share = 1 - affordable(c, self.cost, self.layers)
        if self.until is not None and settled(c, self.until):
            share = 0.0
        before = previous(c)
        alike = np.full(len(c), -np.inf)
        for frame in c.frames:
            has = frame[before[frame] >= 0]
            alike[has] = cosines(c.x[before[has]].double(), c.x[has].double()).cpu().numpy()
        order = np.argsort(-alike, kind="stable")
        order = order[alike[order] >= self.tau][: int(share * len(c) + 1e-9)]
        joins, run = np.full(len(c), -1), np.arange(len(c))
        joins[order] = before[order]
        for frame in c.frames:
            inside = frame[joins[frame] >= 0]
            run[inside] = run[joins[inside]]
        order = np.argsort(run, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(run[order])) + 1)


def previous(c: Candidates) -> np.ndarray:
    """Number of the token of the same place in the nearest earlier frame that has one; -1."""
    _, place = np.unique(np.stack([c.row, c.col]), axis=1, return_inverse=True)
    place = place.reshape(-1)
    order = np.lexsort((np.arange(len(c)), c.frame, place))
    before = np.full(len(c), -1)
    same = (place[order[1:]] == place[order[:-1]]) & (c.row >= 0)[order[1:]]
    before[order[1:][same]] = order[:-1][same]
    return before


def along_time(c: Candidates) -> Float[np.ndarray, "cut place"]:
    """Cosines of each place with itself in the next frame.

    Raises:
        ProbeError: frames do not have the same places.
    """
    x = c.stack()
    pairs = [cosines(a.double(), b.double()) for a, b in pairwise(x)]
    none = np.zeros((0, x.shape[1]))
    return np.stack([pair.cpu().numpy() for pair in pairs]) if pairs else none


def best_cuts(same: Bool[np.ndarray, "cut place"], longest: int) -> list[int]:
    """Cuts of the greatest gain, by dynamic programming over where a group ends.

    Args:
        same: whether a place stays the same from a frame to the next.
        longest: frames of a group at most.
    """
    best, start = [0], []
    for end in range(len(same) + 1):
        gain, first = best[end], end
        static = np.ones(same.shape[1], bool)
        for begin in range(end - 1, max(-1, end - longest), -1):
            static &= same[begin]
            if not static.any():
                break
            more = best[begin] + int(static.sum()) * (end - begin)
            if more > gain:
                gain, first = more, begin
        best.append(gain)
        start.append(first)
    cuts, end = [], len(same)
    while start[end] > 0:
        cuts.append(start[end])
        end = start[end] - 1
    return cuts[::-1]
