"""MaskingNull: what is left of the answer when visual tokens go at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.diagnose import token_order
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.keeping import keeping_of, share_of

if TYPE_CHECKING:
    from probe.diagnose.case import Case


@dataclass(frozen=True)
class MaskingNull(Diagnosis):
    """The gold margin with random shares of the visual tokens: the null curve of any selection.

    ST-LLM (arXiv 2404.00308) trains with visual tokens masked at random; here the model is as it
    is, and tokens are out of the sequence, at their own positions. A method that chooses tokens
    has to be better than this at the same count.

    Attributes:
        keep: shares of the visual tokens that stay.
        draws: random choices of each.
        layer: first decoder layer that works without the others; 0 for before the first.

    Gives, in the mean over draws, `null_SHARE`, the margin in nats, and `null_right_SHARE`, how
    often the right answer is still ahead; `null_full` and `null_none`, with every token and none;
    the array `null` [kept, draw] of margins. It takes two untouched runs and a short one a draw.
    """

    section: ClassVar[str] = "redundancy"
    source: ClassVar[str] = "ST-LLM (arXiv 2404.00308)"

    keep: Sequence[float] = (0.5, 0.25, 0.1, 0.05, 0.02)
    draws: int = 3
    layer: int = 0

    def measure(self, case: Case) -> Values:
        import xarray as xr

        keeping, draw = keeping_of(case, layer=self.layer, owner=self.kind), token_order.rng(case)
        total = len(keeping.tokens)
        table = np.empty((len(self.keep), self.draws))
        for row, share in enumerate(self.keep):
            count = share_of(share, total, self.kind)
            for column in range(self.draws):
                chosen = draw.permutation(total)[:count]
                table[row, column] = keeping.gold_margin(chosen)
        values: dict = {
            "null_full": case.gold_margin(case.run),
            "null_none": keeping.gold_margin(np.zeros(0, np.int64)),
        }
        for share, margins in zip(self.keep, table, strict=True):
            values[f"null_{share:g}"] = float(margins.mean())
            values[f"null_right_{share:g}"] = float((margins > 0).mean())
        coords = {"kept": list(self.keep), "draw": np.arange(self.draws)}
        attrs = {"units": "nats", "description": "gold margin with random visual tokens"}
        values["null"] = xr.DataArray(table, coords, ["kept", "draw"], attrs=attrs)
        return values
