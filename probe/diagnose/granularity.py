"""Granularity: how coarse the frames may be, and what an oracle over scales is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from probe.ablate.recipes.pooling import pllava
from probe.diagnose import token_order
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.keeping import keeping_of
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

    from probe.diagnose.case import Case


@dataclass(frozen=True)
class Granularity(Diagnosis):
    """The smallest grid of tokens a frame with which the answer is right, on a ladder of averages.

    M3 (arXiv 2405.17430) averages each frame to 24, 12, 6, 3 and 1 tokens a side and asks for the
    smallest scale that answers right, and for the oracle that is right at any scale. The model here
    is not trained on nested scales. An oracle over several noisy tries is better than one try
    whatever they are, so that the same oracle over `reruns` other tries is subtracted (our own
    correction): each has as many scales, with random tokens in place of averages, as many of them.

    Attributes:
        factor: from one scale to the next, sides are divided by this, and rounded up.
        reruns: random oracles.

    Gives `smallest`, tokens a frame at the smallest scale that is right (NaN where none is), and
    `smallest_share`; "right_RxC" and "margin_RxC" of each scale, R rows and C columns; `oracle`,
    right at any scale; `oracle_random`, share of the reruns that are right at any of theirs;
    `oracle_gain`, the difference. Pooled, "oracle - RxC" is what the oracle gains over the scale
    that is most often right. Two untouched runs and (1 + reruns) x (scales - 1) reduced ones; the
    full scale is the same in every rerun.
    """

    section: ClassVar[str] = "redundancy"
    source: ClassVar[str] = "M3 (arXiv 2405.17430)"
    needs: ClassVar[tuple[str, ...]] = ("clip", "gold")

    factor: float = 2.0
    reruns: int = 5

    def measure(self, case: Case) -> Values:
        keeping, draw = keeping_of(case, owner=self.kind), token_order.rng(case)
        layout, total = case.x.layout, len(keeping.tokens)
        if layout.grid is None or not self.factor > 1:
            what = "has no grid of rows and columns" if layout.grid is None else "needs factor > 1"
            raise ProbeError(f"{self.kind}: {case.model.name} {what}")
        frames = len(np.unique(layout.group[keeping.tokens]))
        rows = int(layout.row[keeping.tokens].max()) + 1
        cols = int(layout.col[keeping.tokens].max()) + 1
        scales = ladder(rows, cols, self.factor)
        values: dict[str, Any] = {}
        right, chance = [case.right(case.run)], np.zeros((self.reruns, len(scales)), bool)
        chance[:, 0] = right[0]
        margins = [case.gold_margin(case.run)]
        for place, (r, c) in enumerate(scales[1:], 1):
            margins.append(case.gold_margin(keeping.again.run([pllava((None, r, c))])))
            right.append(margins[-1] > 0)
            for rerun in range(self.reruns):
                chosen = draw.permutation(total)[: frames * r * c]
                chance[rerun, place] = keeping.gold_margin(chosen) > 0
        for (r, c), margin, hit in zip(scales, margins, right, strict=True):
            values |= {f"margin_{r}x{c}": margin, f"right_{r}x{c}": float(hit)}
        sizes = [r * c for (r, c), hit in zip(scales, right, strict=True) if hit]
        smallest = float(min(sizes)) if sizes else float("nan")
        random = float(chance.any(1).mean()) if self.reruns else float("nan")
        return values | {
            "smallest": smallest,
            "smallest_share": smallest / (rows * cols),
            "oracle": float(any(right)),
            "oracle_random": random,
            "oracle_gain": float(any(right)) - random,
        }

    def pool(self, table: pd.DataFrame) -> pd.DataFrame:
        """Means, and what the oracle over scales gains over the best single one."""
        from probe.diagnose.pool import means
        from probe.diagnose.pool_rows import append, of_sums

        scales = [name for name in table if str(name).startswith("right_")]
        columns = {name: table[name] for name in ("oracle", *scales)}
        columns["cases"] = np.ones(len(table))

        def gain(oracle: np.ndarray, *each: np.ndarray) -> np.ndarray:
            return (oracle - np.max(each[:-1], axis=0)) / each[-1]

        best = max(scales, key=lambda name: table[name].mean())
        row = of_sums(f"oracle - {best.removeprefix('right_')}", table, columns, gain)
        return append(means(table), [row])


def ladder(rows: int, cols: int, factor: float) -> list[tuple[int, int]]:
    """Grids from the full one down to one cell, sides divided by the factor each time."""
    found = [(rows, cols)]
    while found[-1] != (1, 1):
        r, c = found[-1]
        smaller = (max(1, -int(-r // factor)), max(1, -int(-c // factor)))
        found.append(smaller if smaller != (r, c) else (max(1, r - 1), max(1, c - 1)))
    return found
