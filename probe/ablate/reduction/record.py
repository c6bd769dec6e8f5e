"""Reduction: what a reduction did in one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from probe.ablate.reduction.weights import Weights

if TYPE_CHECKING:
    import pandas as pd

    from probe.models.layout import Layout


@dataclass(frozen=True, eq=False)
class Reduction:
    """The weights of a reduction, and which tokens they are over.

    Attributes:
        name: of the ablation.
        layer: first decoder layer that works on its outputs.
        weights: [out, candidate].
        candidates: layout position of each input.
        anchors: layout position that each output was seen at.
        proxies: scores that stand for another, and for which.
    """

    name: str
    layer: int
    weights: Weights
    candidates: Int[np.ndarray, " candidate"]
    anchors: Int[np.ndarray, " out"]
    proxies: tuple[str, ...] = ()

    @property
    def dropped(self) -> Int[np.ndarray, " gone"]:
        """Positions that are no output's anchor."""
        return np.setdiff1d(self.candidates, self.anchors)

    def coverage(self, positions: int) -> Float[np.ndarray, " position"]:
        """What is left of each position, for `layout.paint`; NaN where it was no candidate.

        Args:
            positions: length of the layout.
        """
        vector = np.full(positions, np.nan)
        vector[self.candidates] = self.weights.coverage
        return vector

    def to_frame(self, layout: Layout) -> pd.DataFrame:
        """One row per output: anchor, group, row, col, frames it is made of, entries, gain, mass.

        Args:
            layout: of the run.
        """
        import pandas as pd

        w, group = self.weights, layout.group
        order = np.argsort(w.row, kind="stable")
        sources = np.split(w.col[order], np.cumsum(np.bincount(w.row, minlength=len(w)))[:-1])
        return pd.DataFrame(
            {
                "anchor": self.anchors,
                "group": group[self.anchors],
                "row": layout.row[self.anchors],
                "col": layout.col[self.anchors],
                "groups": [sorted(set(group[self.candidates[s]].tolist())) for s in sources],
                "entries": [len(s) for s in sources],
                "gain": w.gain,
                "mass": w.mass,
            }
        )
