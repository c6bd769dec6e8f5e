"""Sensitivity: what pruning costs by layer, by ratio and by sample, and which of them matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from probe.ablate.reduce import Reduce
from probe.ablate.reduction.parts import Score
from probe.ablate.scores import LastQuery
from probe.ablate.sites import Layer
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.keeping import share_of
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    import pandas as pd

    from probe.diagnose.case import Case

PARTS = ("layer", "keep", "sample", "layer x keep", "layer x sample", "keep x sample", "rest")


@dataclass(frozen=True)
class Sensitivity(Diagnosis):
    """How far the gold margin falls when a share of the visual tokens is left from a layer on.

    ATP-LLaVA (arXiv 2412.00447) argues from such a table that the ratio should depend on layer and
    sample. Which of the three matters is a split of the variance, ours: over cases a balanced
    table [layer, keep, sample] has one number a cell, and its sum of squares about the mean is the
    exact sum of those of layer, keep, sample, their interactions in pairs, and the rest, which is
    the interaction of all three.

    Attributes:
        layers: first layers that work on fewer tokens; layer 0 has no attention before it.
        keep: shares that stay.
        score: which tokens stay, by default FastV's.

    Gives "fall LAYER KEEP" in nats, positive where pruning hurts; the array `fall` [layer, kept].
    Pooled: their means, and "variance PART", shares of the sum of squares with intervals over
    videos. One untouched run and one from each layer on for each share.
    """

    section: ClassVar[str] = "redundancy"
    source: ClassVar[str] = "ATP-LLaVA (arXiv 2412.00447)"

    layers: Layers = "1-"
    keep: Sequence[float] = (0.5, 0.25, 0.1)
    score: Score = LastQuery()

    def measure(self, case: Case) -> Values:
        import xarray as xr

        layers = resolve_layers(self.layers, case.model.n_layers, self.kind)
        total = len(case.video_tokens)
        made = [
            Reduce(at=Layer(k), score=self.score, keep_tokens=share_of(share, total, self.kind))
            for k in layers
            for share in self.keep
        ]
        margins = case.sweep(made)["value"].to_numpy(float)
        table = (margins[0] - margins[1:]).reshape(len(layers), len(self.keep))
        values: dict[str, Any] = {
            f"fall {k} {share:g}": float(table[i, j])
            for i, k in enumerate(layers)
            for j, share in enumerate(self.keep)
        }
        coords = {"layer": list(layers), "kept": list(self.keep)}
        attrs = {"units": "nats", "description": "fall of the gold margin when tokens are pruned"}
        values["fall"] = xr.DataArray(table, coords, list(coords), attrs=attrs)
        return values

    def pool(self, table: pd.DataFrame) -> pd.DataFrame:
        """Means, and the split of the variance."""
        from probe.diagnose.pool import means
        from probe.diagnose.pool_rows import append, of_sums

        names = [str(name) for name in table if str(name).startswith("fall ")]
        layers = list(dict.fromkeys(name.split()[1] for name in names))
        keeps = list(dict.fromkeys(name.split()[2] for name in names))
        shape = (len(layers), len(keeps))
        cells = np.array([[table[f"fall {k} {s}"] for s in keeps] for k in layers], dtype=float)
        columns = dict(zip(names, cells.reshape(-1, len(table)), strict=True))
        columns |= {
            "cases": np.ones(len(table)),
            "square": (cells**2).sum((0, 1)),
            "sample": cells.mean((0, 1)) ** 2,
            "by layer": (cells.mean(1) ** 2).sum(0),
            "by keep": (cells.mean(0) ** 2).sum(0),
        }
        rows = [
            of_sums(f"variance {part}", table, columns, lambda *s, n=n: split(s, shape)[n])
            for n, part in enumerate(PARTS)
        ]
        return append(means(table), rows)


def split(sums: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Shares of the sum of squares [part, resample], in the order of `PARTS`.

    Args:
        sums: over cases [resample]: of each cell of [layer, keep] in raster order; how many cases;
            of their squares over all cells; of the square of a case's mean; of the squares of its
            means over keep, summed over layers; and over layers, summed over keep.
        shape: number of layers and of shares.
    """
    a, b = shape
    *cells, n, square, sample, by_layer, by_keep = sums
    mean = np.array(cells).reshape(a, b, -1) / n
    grand = mean.mean((0, 1)) ** 2
    layer = (mean.mean(1) ** 2).mean(0) - grand
    keep = (mean.mean(0) ** 2).mean(0) - grand
    case = sample / n - grand
    found = [
        layer,
        keep,
        case,
        (mean**2).mean((0, 1)) - grand - layer - keep,
        by_layer / (n * a) - grand - layer - case,
        by_keep / (n * b) - grand - keep - case,
    ]
    total = square / (n * a * b) - grand
    found.append(total - np.sum(found, axis=0))
    return np.divide(found, total, out=np.full((7, *np.shape(total)), np.nan), where=total > 0)
