"""Small parts: order by score, budgets with an exception, compression only where it is needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probe.ablate.reduction.budget import fraction
from probe.ablate.reduction.budget_layers import original
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Budget, Chosen, Exactly, Index, Rest, Score, Select
from probe.ablate.reduction.rest import Drop
from probe.ablate.reduction.select import best, leaves_of
from probe.errors import ProbeError


@dataclass(frozen=True)
class Ranked(Exactly):
    """The largest scores, best first, for methods that leave their tokens in this order; ties go to
    the earlier token. A group of which all stay keeps its order.
    """

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        kept = group if count >= len(group) else best(group, score)[:count]
        return Chosen(kept, kept)


@dataclass(frozen=True)
class Larger(Budget):
    """A budget for groups of more than so many tokens; smaller ones keep all.

    Attributes:
        than: largest size that keeps all (14 in PruneVid, Huang et al. 2024, arXiv 2412.16117).
        budget: of the others.
    """

    than: int
    budget: Budget

    @property
    def inert(self) -> bool:
        return self.budget.inert

    def leaves(self) -> tuple[Score, ...]:
        return self.budget.leaves()

    def counts(self, c: Candidates, groups: list[Index], score: np.ndarray) -> list[int]:
        wanted = self.budget.counts(c, groups, score)
        return [
            len(group) if len(group) <= self.than else count
            for group, count in zip(groups, wanted, strict=True)
        ]


@dataclass(frozen=True)
class WindowEnds(Budget):
    """Tokens of each frame as the released code of DyCoke (Tao et al. 2024, arXiv 2411.15024)
    counts them: of the frames of a window the first keeps all and the others a part; but the last
    window keeps its third frame, and a last frame without a partner is lost.

    Attributes:
        keep: part of the tokens of a thinned frame, rounded down.
    """

    keep: float

    @property
    def inert(self) -> bool:
        return self.keep == 1

    def counts(self, c: Candidates, groups: list[Index], score: np.ndarray) -> list[int]:
        every = c if c.whole is None else c.whole
        frames = np.unique(every.frame)
        counts = []
        for group in groups:
            numbers = np.unique(c.frame[group])
            if len(numbers) > 1:
                raise ProbeError(f"{self.kind}: groups are frames here; use segment=PerFrame()")
            here = [int(np.searchsorted(frames, number)) for number in numbers]
            counts.append(sum(self._of(t, len(frames), len(group)) for t in here))
        return counts

    def _of(self, t: int, frames: int, size: int) -> int:
        thinned = int(size * fraction(self, self.keep) + 1e-9)
        if t == frames - 1 and frames % 2:
            return 0
        if t % 2:
            return thinned
        return thinned if t % 4 == 2 and t - 2 < frames - 4 else size


@dataclass(frozen=True)
class IfShort(Select):
    """A selection, unless the budget has room for every token that is there; then all stay.

    Attributes:
        keep: the budget, a fraction of the original tokens.
        select: where there are more.
    """

    keep: float
    select: Select

    def leaves(self) -> tuple[Score, ...]:
        return leaves_of(self.select)

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        if roomy(c, self.keep):
            return Chosen(group, group)
        return self.select.choose(c, group, score, count)


@dataclass(frozen=True)
class MergeIfShort(Rest):
    """What becomes of the rest, unless the budget has room for every token that is there; then
    nothing is merged.

    Attributes:
        keep: the budget, a fraction of the original tokens.
        rest: where there are more.
    """

    keep: float
    rest: Rest

    def leaves(self) -> tuple[Score, ...]:
        return leaves_of(self.rest)

    def rows(self, c: Candidates, group: Index, chosen: Chosen, score: np.ndarray) -> list[tuple]:
        rest = Drop() if roomy(c, self.keep) else self.rest
        return rest.rows(c, group, chosen, score)


def roomy(c: Candidates, keep: float) -> bool:
    """Whether int(keep * original tokens) are as many as there are now."""
    return int(keep * original(c) + 1e-9) >= len(c)
