"""TimeMean: each place averaged over so many frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.merge_time import Collapse
from probe.ablate.reduction.parts import Chosen, Pooling
from probe.ablate.reduction.segment import Fixed
from probe.ablate.reduction.weights import Weights


@dataclass(frozen=True)
class TimeMean(Pooling):
    """Each place, and each token without one, averaged over `window` frames, at the earliest of
    them. Average of frames in STORM (Jiang et al., 2025).

    Attributes:
        window: frames; the last window may be shorter. 1 leaves everything.
    """

    window: int = 4

    def weights(self, c: Candidates) -> Weights:
        rows = []
        for group in Fixed(self.window).groups(c):
            rows += Collapse().rows(c, group, Chosen(group, group), np.zeros(len(c)))
        return Weights.of_rows(rows, len(c))
