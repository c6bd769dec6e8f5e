"""Scores that need nothing but the tokens at the site; higher means keep.

Ties go to the earlier token. Scores that compare features are in `scores_features`, those that
read attention, text or the vision tower in the modules beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score
from probe.ablate.scores_attention import KeyNorm, LastQuery
from probe.errors import ProbeError

__all__ = ["LastQuery", "Norm", "Position", "Random", "Score", "Uniform"]


@dataclass(frozen=True)
class Norm(Score):
    """p-norm of a token.

    Attributes:
        of: "hidden" for its features at the site; "key" for its keys in the decoder layer before,
            all key heads side by side.
        p: of the norm.
    """

    of: str = "hidden"
    p: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of not in ("hidden", "key"):
            raise ProbeError(f'{self.kind}: of="{self.of}"; there are hidden and key')
        if isinstance(self.p, bool) or not isinstance(self.p, int | float) or not self.p > 0:
            raise ProbeError(f"{self.kind}: p={self.p}; the norm has a p above 0")

    def leaves(self) -> tuple[Score, ...]:
        return (self,) if self.of == "hidden" else (KeyNorm(p=self.p),)

    def score(self, c: Candidates) -> Tensor:
        if self.of == "key":
            return KeyNorm(p=self.p).score(c)
        return c.x.float().norm(p=self.p, dim=-1).double()


@dataclass(frozen=True)
class Uniform(Score):
    """Evenly spaced tokens in sequence order: a control that ignores what they hold."""

    def score(self, c: Candidates) -> Tensor:
        # In van der Corput order any number of leading tokens is close to evenly spaced.
        bits = max(1, (len(c) - 1).bit_length())
        rank = [int(f"{index:0{bits}b}"[::-1], 2) for index in range(len(c))]
        return -torch.tensor(rank, dtype=torch.float64)


@dataclass(frozen=True)
class Random(Score):
    """Random tokens: the control every reduction needs. Seeded, independent of the device."""

    seed: int = 0

    def score(self, c: Candidates) -> Tensor:
        return torch.from_numpy(np.random.default_rng(self.seed).random(len(c)))


@dataclass(frozen=True)
class Position(Score):
    """The order in which tokens stand in their frame, whatever they hold.

    With stride 1 the first tokens of each frame are best: the nested prefixes of MQT (Hu et al.
    2024, arXiv 2405.19315). With stride s every s-th token comes first, then the tokens after
    these, and so on.

    Attributes:
        stride: 1 or more.
    """

    stride: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.stride, int) or self.stride < 1:
            raise ProbeError(f"{self.kind}: stride={self.stride}; it is a whole number from 1 on")

    def score(self, c: Candidates) -> Tensor:
        rank = np.zeros(len(c))
        for frame in c.frames:
            index = np.arange(len(frame))
            order = np.lexsort((index, index % self.stride))
            rank[frame[order]] = index
        return torch.from_numpy(-rank)
