"""FrameFusion's merging: site after site, until few places are alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probe.ablate.reduction.budget_layers import settled
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Index
from probe.ablate.reduction.segment_static import PlaceRuns


@dataclass(frozen=True)
class UntilSettled(PlaceRuns):
    """`PlaceRuns` at one of several sites: behind the one where merging ended each token is a
    group, whatever the cost so far.
    """

    def groups(self, c: Candidates) -> list[Index]:
        if self.until is not None and settled(c, self.until):
            return [np.array([token]) for token in range(len(c))]
        return super().groups(c)
