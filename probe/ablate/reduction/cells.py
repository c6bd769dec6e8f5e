"""Cells: a pool of the grid alone, beside tokens that belong to no cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Pooling, Score
from probe.ablate.reduction.weights import Weights


@dataclass(frozen=True)
class Cells(Pooling):
    """The tokens that have a row and a column are pooled; others stay as they are, such as the CLS
    token that Video-LLaVA shows its decoder with each frame.

    Attributes:
        pool: of the grid.
    """

    pool: Pooling

    @property
    def inert(self) -> bool:
        return self.pool.inert

    def leaves(self) -> tuple[Score, ...]:
        return self.pool.leaves()

    def weights(self, c: Candidates) -> Weights:
        inside = (c.row >= 0) & (c.col >= 0)
        if inside.all():
            return self.pool.weights(c)
        cells, others = np.flatnonzero(inside), np.flatnonzero(~inside)
        pooled = self.pool.weights(c.take(cells)).within(cells, len(c))
        return Weights.stack([pooled, Weights.selection(others, len(c), c.mass)]).raster()
