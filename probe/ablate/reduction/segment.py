"""Segmentations that do not look at features: whole, frames, windows, tiles, what came before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Index, Segment
from probe.errors import ProbeError


@dataclass(frozen=True)
class Whole(Segment):
    """One group of all candidates."""

    def sizes(self, frames: tuple[int, ...] | None, count: int) -> list[int] | None:
        return [count]

    def groups(self, c: Candidates) -> list[Index]:
        return [np.arange(len(c))]


@dataclass(frozen=True)
class PerFrame(Segment):
    """One group a frame."""

    def sizes(self, frames: tuple[int, ...] | None, count: int) -> list[int] | None:
        return None if frames is None else list(frames)

    def groups(self, c: Candidates) -> list[Index]:
        return list(c.frames)


@dataclass(frozen=True)
class SameSegments(Segment):
    """The groups of the last segmentation, as far as they are still there."""

    def groups(self, c: Candidates) -> list[Index]:
        return equal(c.segment)


@dataclass(frozen=True)
class PerPiece(Segment):
    """One group for each piece of each group of the last segmentation and split."""

    def groups(self, c: Candidates) -> list[Index]:
        return equal(c.segment, c.piece)


@dataclass(frozen=True)
class Fixed(Segment):
    """Windows of so many frames; the last one may be shorter.

    Attributes:
        window: frames (4 in DyCoke, arXiv 2411.15024; 10 in LongVLM, arXiv 2404.03384).
    """

    window: int = 4

    def sizes(self, frames: tuple[int, ...] | None, count: int) -> list[int] | None:
        positive(self, "window", self.window)
        if frames is None:
            return None
        return [sum(frames[t : t + self.window]) for t in range(0, len(frames), self.window)]

    def groups(self, c: Candidates) -> list[Index]:
        positive(self, "window", self.window)
        return joined(c, range(self.window, len(c.frames), self.window))


@dataclass(frozen=True)
class Tiles(Segment):
    """Spatial windows of each frame, or runs of the flattened list of candidates.

    Attributes:
        height, width: cells of a window (3 x 3 in MustDrop, arXiv 2411.10803); those at the right
            and at the bottom may be smaller. Tokens without a cell (newlines) are a group for each
            frame.
        length: in their place: tokens of a run, across rows and frames (LiveVLM, arXiv 2505.15269).
    """

    height: int | None = None
    width: int | None = None
    length: int | None = None

    def sizes(self, frames: tuple[int, ...] | None, count: int) -> list[int] | None:
        if self.length is None:
            return None
        positive(self, "length", self.length)
        return [min(self.length, count - start) for start in range(0, count, self.length)]

    def groups(self, c: Candidates) -> list[Index]:
        if self.length is not None and self.height is None and self.width is None:
            positive(self, "length", self.length)
            starts = range(self.length, len(c), self.length)
            return [part for part in np.split(np.arange(len(c)), starts) if len(part)]
        if self.height is None or self.width is None or self.length is not None:
            raise ProbeError("tiles: give height= and width=, or length= alone")
        positive(self, "height", self.height)
        positive(self, "width", self.width)
        cell = (c.row >= 0) & (c.col >= 0)
        down = np.where(cell, c.row // self.height, -1)
        right = np.where(cell, c.col // self.width, -1)
        return equal(c.frame, down, right)


def joined(c: Candidates, cuts: Iterable[int]) -> list[Index]:
    """Groups of whole frames.

    Args:
        c: the candidates.
        cuts: first frame of each group after the first, as numbers in `c.frames`.
    """
    edges = [0, *sorted(set(cuts)), len(c.frames)]
    parts = [c.frames[a:b] for a, b in pairwise(edges) if a < b]
    return [np.sort(np.concatenate(part)) for part in parts]


def equal(*tags: Sequence[int] | np.ndarray) -> list[Index]:
    """Groups of candidates whose tags are all equal, sorted by the tags."""
    _, group = np.unique(np.stack([np.asarray(tag) for tag in tags]), axis=1, return_inverse=True)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    return np.split(order, np.cumsum(np.bincount(group))[:-1]) if len(order) else []


def positive(owner: Segment, name: str, value: object) -> None:
    """Refuse what is no whole number from 1.

    Raises:
        ProbeError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ProbeError(f"{owner.kind}: {name}={value!r}; it is a whole number from 1")
