"""Selections by place: a regular grid along the list, a lattice in time and space, local best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Chosen, Index, Select
from probe.ablate.reduction.select import best
from probe.errors import ProbeError


@dataclass(frozen=True)
class Grid(Select):
    """Tokens at equal distances along the list of the group, whatever their scores.

    Attributes:
        stride: every so many-th, from the first; the budget is not looked at.
        count: so many; that of the budget by default.
        spacing: of a count: "linspace" rounded, both ends included (TS-LLaVA, Qu et al., 2024);
            "stride" every ⌊n / count⌋-th, the first `count` of them (VisionZip, Yang et al., 2024).
    """

    stride: int | None = None
    count: int | None = None
    spacing: str = "linspace"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride is not None and (self.stride < 1 or self.count is not None):
            raise ProbeError(f"{self.kind}: give stride= of at least 1, or count=, not both")
        if self.spacing not in ("linspace", "stride"):
            raise ProbeError(f'{self.kind}: spacing="{self.spacing}" is not "linspace" or "stride"')

    @property
    def inert(self) -> bool:
        return self.stride == 1

    @property
    def exact(self) -> bool:
        return self.stride is None and self.count is None

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        wanted = min(count if self.count is None else self.count, len(group))
        if self.stride is not None:
            kept = group[:: self.stride]
        elif self.spacing == "stride":
            kept = group[:: max(1, len(group) // max(1, wanted))][:wanted]
        else:
            kept = group[np.round(np.linspace(0, len(group) - 1, wanted)).astype(np.int64)]
        return Chosen(kept, kept)


@dataclass(frozen=True)
class FinerGrid(Select):
    """A grid `factor` times finer than the one with `count` tokens, for a union with these: every
    ⌊⌊n / count⌋ / factor⌋-th. The spatial tokens of PruMerge+ (Shang et al., 2024).

    Attributes:
        factor: how much finer.
        leave: so many tokens at the end of the list are never on the grid; its code leaves one.
    """

    factor: int = 3
    leave: int = 1

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        step = len(group) // max(1, count) // self.factor
        kept = group[: max(0, len(group) - self.leave) : max(1, step)]
        return Chosen(kept, kept)


@dataclass(frozen=True)
class Lattice(Select):
    """Every `time`-th frame of the group, in it every `row`-th row and `col`-th column, from the
    first; the budget is not looked at. A token without a cell, such as a newline, is on it only
    where rows and columns are not thinned. Frames of STORM (Jiang et al., 2025), spatial lattice
    of ATP-LLaVA (Ye et al., 2024).
    """

    time: int = 1
    row: int = 1
    col: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.time, self.row, self.col) < 1:
            raise ProbeError(f"{self.kind}: strides are at least 1, not {self}")

    @property
    def inert(self) -> bool:
        return self.time == self.row == self.col == 1

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        frame = np.unique(c.frame[group], return_inverse=True)[1]
        on = frame % self.time == 0
        on &= (c.row[group] % self.row == 0) & (c.col[group] % self.col == 0)
        without = (c.row[group] < 0) | (c.col[group] < 0)
        kept = group[on & ~(without & (self.row * self.col > 1))]
        return Chosen(kept, kept)


@dataclass(frozen=True)
class LocalTop(Select):
    """The best of each run of the group's list: no part of it stays without a token.

    Runs as of EarlyTom's middle frames.

    Attributes:
        each: best of a run.
        window: tokens in a run; by default as many runs as the count asks for, of equal
            length, the earlier ones longer by one where it does not divide.
    """

    each: int = 1
    window: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.each < 1 or (self.window is not None and self.window < 1):
            raise ProbeError(f"{self.kind}: each= and window= are at least 1, not {self}")

    @property
    def inert(self) -> bool:
        return self.window is not None and self.window <= self.each

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        if self.window is not None:
            runs = np.split(group, np.arange(self.window, len(group), self.window))
        else:
            runs = np.array_split(group, max(1, -(-min(count, len(group)) // self.each)))
        kept = np.sort(np.concatenate([best(run, score)[: self.each] for run in runs]))
        if self.window is None:
            kept = np.sort(best(kept, score)[:count])
        return Chosen(kept, kept)
