"""PoolingTolerance: how many visual tokens can be averaged away, against dropping as many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from probe.ablate.recipes.pooling import llavolta
from probe.diagnose import token_order
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.keeping import keeping_of
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.diagnose.case import Case

HOW = ("pool", "stride", "random")


@dataclass(frozen=True)
class PoolingTolerance(Diagnosis):
    """The gold margin when every s visual tokens in a row become their average, and its controls.

    LLaVolta averages runs of visual tokens in a layer; at test time alone, up to 70 % of the tokens
    can go for about 3 % of accuracy (arXiv 2406.20092). The controls have as many tokens from the
    same layer on: "stride" keeps the middle one of each run, "random" any.

    Attributes:
        sizes: tokens averaged, s; rising.
        layer: where; the paper's is 2.
        draws: random choices of each size, whose mean counts.

    Gives "pool S", "stride S" and "random S", margins in nats; "right_pool S" and so on, 0 or 1
    (a mean over draws); `tolerated_pool`, `tolerated_stride`, `tolerated_random`: the largest
    share of tokens that is gone while the right answer is ahead at this and every smaller size
    (random: its mean margin), 0 where it is at none, NaN where it is not with every token; the
    array `pooled` [how, removed] of margins. Two untouched runs and 4 reduced ones a size.
    """

    section: ClassVar[str] = "redundancy"
    source: ClassVar[str] = "LLaVolta (arXiv 2406.20092)"

    sizes: Sequence[int] = (2, 3, 4, 8, 16)
    layer: int = 2
    draws: int = 2

    def measure(self, case: Case) -> Values:
        import xarray as xr

        if not self.sizes or min(self.sizes) < 2 or list(self.sizes) != sorted(set(self.sizes)):
            raise ProbeError(f"{self.kind}: sizes={self.sizes}; they rise, from 2 on")
        keeping, draw = keeping_of(case, layer=self.layer, owner=self.kind), token_order.rng(case)
        total = len(keeping.tokens)
        full = case.gold_margin(case.run)
        values: dict[str, Any] = {}
        table = np.empty((len(HOW), len(self.sizes)))
        gone = np.empty(len(self.sizes))
        for column, size in enumerate(self.sizes):
            count = -(-total // size)
            gone[column] = 1 - count / total
            runs = np.array_split(np.arange(total), range(size, total, size))
            middle = np.array([run[(len(run) - 1) // 2] for run in runs])
            found = {
                "pool": [case.gold_margin(keeping.again.run([llavolta(self.layer, size)]))],
                "stride": [keeping.gold_margin(middle)],
                "random": [
                    keeping.gold_margin(draw.permutation(total)[:count]) for _ in range(self.draws)
                ],
            }
            for row, (how, margins) in enumerate(found.items()):
                table[row, column] = values[f"{how} {size}"] = float(np.mean(margins))
                values[f"right_{how} {size}"] = float(np.mean(np.array(margins) > 0))
        for how, margins in zip(HOW, table, strict=True):
            lost = np.flatnonzero(margins <= 0)
            held = len(margins) if not len(lost) else lost[0]
            shares = np.concatenate([[0.0], gone])
            values[f"tolerated_{how}"] = float(shares[held]) if full > 0 else float("nan")
        coords = {"how": list(HOW), "removed": gone}
        attrs = {"units": "nats", "description": "gold margin with fewer visual tokens"}
        values["pooled"] = xr.DataArray(table, coords, list(coords), attrs=attrs)
        return values
