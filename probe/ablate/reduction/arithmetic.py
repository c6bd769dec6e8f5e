"""Arithmetic on scores: sums, products, multiples, and what is done inside a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.engine.session import Session

HOW = ("sum", "max", "minmax", "softmax", "zscore", "rank")


def values(score: Score, c: Candidates) -> Tensor:
    """A score in float64 on the CPU."""
    return score.score(c).detach().double().cpu()


@dataclass(frozen=True)
class _Several(Score):
    """Base: made of several scores."""

    scores: Sequence[Score]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scores or not all(isinstance(score, Score) for score in self.scores):
            raise ProbeError(f"{self.kind}: give a list of scores")

    def leaves(self) -> tuple[Score, ...]:
        return tuple(dict.fromkeys(leaf for score in self.scores for leaf in score.leaves()))

    def check(self, session: Session) -> None:
        for score in self.scores:
            score.check(session)


@dataclass(frozen=True)
class Sum(_Several):
    """The sum of several scores."""

    def score(self, c: Candidates) -> Tensor:
        return torch.stack([values(score, c) for score in self.scores]).sum(0)


@dataclass(frozen=True)
class Times(_Several):
    """The product of several scores."""

    def score(self, c: Candidates) -> Tensor:
        return torch.stack([values(score, c) for score in self.scores]).prod(0)


@dataclass(frozen=True)
class _Of(Score):
    """Base: made of one score."""

    of: Score

    def leaves(self) -> tuple[Score, ...]:
        return self.of.leaves()

    def check(self, session: Session) -> None:
        self.of.check(session)


@dataclass(frozen=True)
class Scaled(_Of):
    """A multiple of a score; -1 turns it round.

    Attributes:
        of: the score.
        factor: any number but 0, which would leave nothing of it.
    """

    factor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        number = isinstance(self.factor, int | float) and not isinstance(self.factor, bool)
        if not number or not np.isfinite(self.factor) or self.factor == 0:
            raise ProbeError(f"{self.kind}: factor={self.factor!r}; it is a number other than 0")

    def score(self, c: Candidates) -> Tensor:
        return values(self.of, c) * self.factor


@dataclass(frozen=True)
class Normalised(_Of):
    """A score normalised inside each frame, so that frames compare.

    Attributes:
        of: the score.
        how: "sum" divides by the sum, "max" by the largest (both want scores from 0 up); "minmax"
            goes from 0 to 1; "softmax"; "zscore" has mean 0 and standard deviation 1; "rank" gives
            the worst 0 and the best 1. A frame of equal scores gets equal values in all but
            "rank", where the earlier token ranks higher.
    """

    how: str = "sum"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.how not in HOW:
            raise ProbeError(f'{self.kind}: how="{self.how}"; there are {", ".join(HOW)}')

    def score(self, c: Candidates) -> Tensor:
        found = values(self.of, c)
        out = torch.zeros_like(found)
        for frame in c.frames:
            out[frame] = self._frame(found[frame])
        return out

    def _frame(self, part: Tensor) -> Tensor:
        if self.how == "rank":
            order = part.argsort(descending=True, stable=True)
            rank = torch.empty_like(part)
            rank[order] = torch.linspace(1, 0, len(part), dtype=part.dtype)
            return rank
        if self.how == "softmax":
            return part.softmax(0)
        if self.how in ("minmax", "zscore"):
            part = part - (part.min() if self.how == "minmax" else part.mean())
            size = part.max() if self.how == "minmax" else part.square().mean().sqrt()
        else:
            if bool((part < 0).any()):
                raise ProbeError(
                    f'{self.kind}: how="{self.how}" of {self.of}, which is below 0 in places; '
                    'use how="minmax" or "rank"'
                )
            size = part.sum() if self.how == "sum" else part.max()
        return part / size if bool(size > 0) else torch.zeros_like(part)


@dataclass(frozen=True)
class FrameScore(_Of):
    """The same value for all tokens of a frame: the mean, or the largest, of its scores.

    Attributes:
        of: the score.
        how: "mean" or "max".
    """

    how: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.how not in ("mean", "max"):
            raise ProbeError(f'{self.kind}: how="{self.how}"; there are mean and max')

    def score(self, c: Candidates) -> Tensor:
        found = values(self.of, c)
        out = torch.zeros_like(found)
        for frame in c.frames:
            out[frame] = found[frame].mean() if self.how == "mean" else found[frame].max()
        return out
