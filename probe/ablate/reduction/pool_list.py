"""Pooling of the flattened list of tokens, and of each frame by itself."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import numpy as np

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Budget, Pooling, Score
from probe.ablate.reduction.pool import (
    adaptive,
    check_anchor,
    linear,
    runs,
    separable,
)
from probe.ablate.reduction.select import leaves_of
from probe.ablate.reduction.weights import Weights
from probe.errors import ProbeError


@dataclass(frozen=True)
class Pool1D(Pooling):
    """Averages of runs of the list, across the ends of rows and frames. LLaVolta (Chen et al.,
    2024).

    Attributes:
        kernel: tokens in a run; the last may be shorter.
        out: in place of it, how many runs, of equal length up to one (they may share a token).
        anchor: whose place a run takes: its "first" token, or the one in its "centre".
    """

    kernel: int | None = None
    out: int | None = None
    anchor: str = "first"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.kernel is None) == (self.out is None) or (self.kernel or self.out or 0) < 1:
            raise ProbeError(f"{self.kind}: give kernel= or out=, one of them, of at least 1")
        check_anchor(self.anchor, self.kind)

    def weights(self, c: Candidates) -> Weights:
        n = len(c)
        if self.out is not None and self.out > n:
            raise ProbeError(
                f"{self.kind}: out={self.out} of {n} tokens; pooling makes fewer, not more"
            )
        bins = runs(n, self.kernel) if self.kernel is not None else adaptive(n, self.out or n)
        return separable([bins], [bins], c.mass, self.anchor)


@dataclass(frozen=True)
class FrameMean(Pooling):
    """The mean of each frame, at the place of its last token: the carrier of VideoScan (Li et al.,
    2025).

    Attributes:
        keep: the other tokens of the frame stay; the carrier takes the place of the last.
    """

    keep: bool = False

    def weights(self, c: Candidates) -> Weights:
        rows = []
        for frame in c.frames:
            mean = np.full(len(frame), 1 / len(frame))
            if self.keep:
                rows += [(token, [token], [1.0], c.mass[token]) for token in frame[:-1]]
            mass = c.mass[frame[-1:] if self.keep else frame].sum()
            rows.append((frame[-1], frame, mean, mass))
        return Weights.of_rows(rows, len(c))


@dataclass(frozen=True)
class SizedPool(Pooling):
    """Each frame resized to a near-square grid of at most as many tokens as its budget, at most
    the grid it has; a frame without budget vanishes. QuoTA (Luo et al., 2025).

    Attributes:
        budget: tokens of each frame.
        score: what the budget looks at, if it does.
        how: "bilinear", or "mean" of bins.
    """

    budget: Budget
    score: Score | None = None
    how: str = "bilinear"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.how not in ("bilinear", "mean"):
            raise ProbeError(f'{self.kind}: how="{self.how}" is not "bilinear" or "mean"')

    def leaves(self) -> tuple[Score, ...]:
        return leaves_of(self.score, self.budget)

    def weights(self, c: Candidates) -> Weights:
        score = np.zeros(len(c))
        if self.score is not None:
            score = self.score.score(c).detach().double().cpu().numpy()
        made = []
        for frame, count in zip(c.frames, self.budget.counts(c, c.frames, score), strict=True):
            _, height, width = c.take(frame).cells
            rows, cols = near_square(count, height, width)
            if rows * cols == 0:
                continue
            bins = [adaptive(height, rows), adaptive(width, cols)]
            axes = bins if self.how == "mean" else [linear(height, rows), linear(width, cols)]
            made.append(separable(axes, bins, c.mass[frame]).within(frame, len(c)))
        return Weights.stack(made) if made else Weights.selection([], len(c), c.mass)


def near_square(count: int, height: int, width: int) -> tuple[int, int]:
    """(rows, columns) inside the given, by QuoTA's released rule: the largest square of at most
    `count` cells, and one row more where that fits too; all of it where the count is enough.
    """
    if count >= height * width:
        return height, width
    side = isqrt(count)
    rows = side + (side * (side + 1) <= count)
    return (min(height, rows), min(width, side)) if count else (0, 0)
