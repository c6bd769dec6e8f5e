"""AtMost: a number of tokens of each group, of which some or all groups may have no more."""

from __future__ import annotations

from dataclasses import dataclass

from probe.ablate.reduction.budget import Count


@dataclass(frozen=True)
class AtMost(Count):
    """The same number of tokens of every group; where no group has more, it is neutral."""

    @property
    def inert(self) -> bool:
        return True
