"""Selections that share the count of a group among its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Chosen, Index, Score, Select
from probe.ablate.reduction.select import leaves_of
from probe.errors import ProbeError


@dataclass(frozen=True)
class EachFrame(Select):
    """A selection in each frame of the group by itself, with equal shares of the count.

    Attributes:
        select: in a frame.
    """

    select: Select

    def leaves(self) -> tuple[Score, ...]:
        return leaves_of(self.select)

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        frames = frames_of(c, group)
        return _each(self.select, c, frames, score, shares(count, [len(f) for f in frames]))


@dataclass(frozen=True)
class Anchors(Select):
    """A selection in every `every`-th frame of the group, counted from its last, with equal shares
    of the count, rounded down. Anchor frames of FastVID (Shen et al., 2025).

    Attributes:
        select: in an anchor frame.
        every: distance of anchor frames.
    """

    select: Select
    every: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every < 1:
            raise ProbeError(f"{self.kind}: every={self.every}; it is at least 1")

    def leaves(self) -> tuple[Score, ...]:
        return leaves_of(self.select)

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        frames = frames_of(c, group)[::-1][:: self.every][::-1]
        parts = [min(count // len(frames), len(frame)) for frame in frames]
        return _each(self.select, c, frames, score, parts)


def frames_of(c: Candidates, group: Index) -> list[Index]:
    """The tokens of the group in each of its frames, first frame first."""
    return [group[c.frame[group] == frame] for frame in np.unique(c.frame[group])]


def shares(count: int, sizes: Sequence[int]) -> list[int]:
    """The count in equal shares, none above its size; one more for the earlier where it does not
    divide.
    """
    given = [0] * len(sizes)
    left = min(count, sum(sizes))
    while left:
        room = [i for i, size in enumerate(sizes) if given[i] < size]
        for order, i in enumerate(room):
            share = left // len(room) + (order < left % len(room))
            given[i] += min(share, sizes[i] - given[i])
        left = min(count, sum(sizes)) - sum(given)
    return given


def _each(
    select: Select, c: Candidates, frames: list[Index], score: np.ndarray, parts: list[int]
) -> Chosen:
    """The selection in each of the frames, with these counts."""
    chosen = [
        select.choose(c, frame, score, part) for frame, part in zip(frames, parts, strict=True)
    ]
    none = np.zeros(0, np.int64)
    return Chosen(
        np.concatenate([none, *(one.centres for one in chosen)]),
        np.concatenate([none, *(one.targets for one in chosen)]),
    )
