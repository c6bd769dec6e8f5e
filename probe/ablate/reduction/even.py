"""Controls of a component at exactly its number of tokens: an equal share, and no merging."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probe.ablate.reduction.budget import apportioned
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Budget, Chosen, Index, Rest, Score


@dataclass(frozen=True)
class Evenly(Budget):
    """As many tokens as another budget gives, shared by the groups in proportion to their size;
    what rounding down leaves goes to the largest remainders.

    Attributes:
        of: the other budget.
    """

    of: Budget

    @property
    def inert(self) -> bool:
        return self.of.inert

    def leaves(self) -> tuple[Score, ...]:
        return self.of.leaves()

    def counts(self, c: Candidates, groups: list[Index], score: np.ndarray) -> list[int]:
        sizes = [len(group) for group in groups]
        total = sum(self.of.counts(c, groups, score))
        shares = [float(size) for size in sizes]
        return apportioned(shares, total, sizes, spill=True, rounding="largest")

    def expected(self, sizes: list[int]) -> int | None:
        return self.of.expected(sizes)


@dataclass(frozen=True)
class Unmerged(Rest):
    """The rows that another treatment of the rest makes, each of them nothing but its anchor.

    Attributes:
        of: the other treatment.
    """

    of: Rest

    def leaves(self) -> tuple[Score, ...]:
        return self.of.leaves()

    def rows(self, c: Candidates, group: Index, chosen: Chosen, score: np.ndarray) -> list[tuple]:
        anchors = [row[0] for row in self.of.rows(c, group, chosen, score)]
        return [(anchor, [anchor], [1.0], c.mass[anchor]) for anchor in anchors]
