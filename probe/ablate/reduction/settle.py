"""FrameFusion's two phases: merging layer after layer until few places are alike, then one cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probe.ablate.reduction.budget_layers import CostTarget, settled
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Index
from probe.ablate.reduction.segment_static import PlaceRuns


@dataclass(frozen=True)
class UntilSettled(PlaceRuns):
    """`PlaceRuns` at one of several sites: behind the one where merging ended each token is a
    group, which is no failure.
    """

    @property
    def inert(self) -> bool:
        return True

    def groups(self, c: Candidates) -> list[Index]:
        if self.until is not None and settled(c, self.until):
            return [np.array([token]) for token in range(len(c))]
        return super().groups(c)


@dataclass(frozen=True)
class OnceSettled(CostTarget):
    """`CostTarget` at one of several sites: only the one behind the end of merging cuts."""

    @property
    def inert(self) -> bool:
        return True
