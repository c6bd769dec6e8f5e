"""Pooling of a full grid of frames, rows and columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Index, Pooling, Score
from probe.ablate.reduction.weights import Weights
from probe.errors import ProbeError


@dataclass(frozen=True)
class Pool(Pooling):
    """Pooling to a smaller grid. PLLaVA (Xu et al., 2024), M3 (Cai et al., 2024), PPLLaVA (Liu et
    al., 2024), DPN.

    Attributes:
        out: (frames, rows, columns) of the result; None leaves an axis as it is. Output i is of
            the inputs ⌊i n / m⌋ to ⌈(i + 1) n / m⌉ - 1, as in adaptive average pooling.
        kernel: in place of `out`, the same three as sizes of the bins; the last may be smaller.
        how: "mean"; "bilinear", linear interpolation along each axis between centres of cells
            (needs `out`); "weighted", a mean in each bin by softmax of the score (PPLLaVA).
        score: with "weighted".
        temp: temperature of the softmax.
        anchor: whose place an output takes: the token in the "centre" of the bin (of two, the
            earlier), or the "first".
    """

    out: tuple[int | None, ...] | None = None
    kernel: tuple[int, ...] | None = None
    how: str = "mean"
    score: Score | None = None
    temp: float = 1.0
    anchor: str = "centre"

    def __post_init__(self) -> None:
        super().__post_init__()
        size = self.out if self.kernel is None else self.kernel
        if size is None or (self.out is not None and self.kernel is not None):
            raise ProbeError(f"{self.kind}: give out= or kernel=, one of them")
        counts = isinstance(size, tuple) and len(size) == 3
        if not counts or any(n is not None and n < 1 for n in size):
            raise ProbeError(f"{self.kind}: {size} are not three counts (frames, rows, columns)")
        if self.how not in ("mean", "bilinear", "weighted"):
            raise ProbeError(f'{self.kind}: how="{self.how}" is not "mean", "bilinear", "weighted"')
        if self.how == "bilinear" and self.out is None:
            raise ProbeError(f'{self.kind}: how="bilinear" needs out=, not kernel=')
        if (self.how == "weighted") != (self.score is not None):
            raise ProbeError(f'{self.kind}: how="weighted" goes with score=, and only with it')
        if self.temp <= 0:
            raise ProbeError(f"{self.kind}: temp={self.temp}; it is above 0")
        check_anchor(self.anchor, self.kind)

    def leaves(self) -> tuple[Score, ...]:
        return () if self.score is None else self.score.leaves()

    def weights(self, c: Candidates) -> Weights:
        bins = [self._bins(axis, n) for axis, n in enumerate(c.cells)]
        made = separable(bins, bins, c.mass, self.anchor)
        if self.how == "bilinear":
            axes = [linear(b.shape[1], b.shape[0]) for b in bins]
            return separable(axes, bins, c.mass, self.anchor)
        if self.score is None:
            return made
        score = self.score.score(c).detach().double().cpu().numpy()[made.col] / self.temp
        largest = np.full(len(made), -np.inf)
        np.maximum.at(largest, made.row, score)
        value = np.exp(score - largest[made.row])
        value /= np.bincount(made.row, value)[made.row]
        return Weights(made.row, made.col, value, made.size, made.anchor, made.mass)

    def _bins(self, axis: int, n: int) -> Float[np.ndarray, "out n"]:
        """Averages along an axis."""
        if self.kernel is not None:
            return runs(n, self.kernel[axis])
        wanted = (self.out or (None, None, None))[axis]
        m = n if wanted is None else wanted
        if m > n:
            raise ProbeError(
                f"{self.kind}: {('frames', 'rows', 'columns')[axis]} cannot go from {n} to {m}; "
                f"pooling makes fewer, so ask for at most {n}"
            )
        return adaptive(n, m)


def check_anchor(anchor: str, owner: str) -> None:
    """Refuse another word than the two."""
    if anchor not in ("centre", "first"):
        raise ProbeError(f'{owner}: anchor="{anchor}" is not "centre" or "first"')


def adaptive(n: int, m: int) -> Float[np.ndarray, "out n"]:
    """Averages of bins ⌊i n / m⌋ to ⌈(i + 1) n / m⌉ - 1; they may share an input."""
    matrix = np.zeros((m, n))
    for i in range(m):
        start, stop = i * n // m, -(-(i + 1) * n // m)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def runs(n: int, kernel: int) -> Float[np.ndarray, "out n"]:
    """Averages of runs of `kernel`, the last of what is left."""
    matrix = np.zeros((-(-n // kernel), n))
    for i in range(len(matrix)):
        start, stop = i * kernel, min(n, (i + 1) * kernel)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def linear(n: int, m: int) -> Float[np.ndarray, "out n"]:
    """Linear interpolation at the centres of m cells, between the centres of n, without a filter
    against aliasing; outside of the outermost centres, their values.
    """
    place = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
    below = np.floor(place).astype(np.int64)
    matrix = np.zeros((m, n))
    np.add.at(matrix, (np.arange(m), below), 1 - (place - below))
    np.add.at(matrix, (np.arange(m), np.minimum(below + 1, n - 1)), place - below)
    return matrix


def separable(
    axes: Sequence[Float[np.ndarray, "_ _"]],
    bins: Sequence[Float[np.ndarray, "_ _"]],
    mass: Float[np.ndarray, " token"],
    anchor: str = "centre",
) -> Weights:
    """Weights on a grid in raster order from a matrix for each axis.

    Args:
        axes: [out, n] of each axis.
        bins: [out, n] of each axis, not zero where an input belongs to an output: they decide
            anchors and masses (the mass of an input is shared equally by its outputs).
        mass: of the inputs.
        anchor: "centre" or "first" of each bin.
    """
    entries = _product(axes)
    row, col, _ = _product(bins)
    anchors, size = np.zeros(1, np.int64), 1
    for one in bins:
        inside = [np.flatnonzero(line) for line in one]
        middle = [line[(len(line) - 1) // 2 if anchor == "centre" else 0] for line in inside]
        anchors = (anchors[:, None] * one.shape[1] + np.array(middle, np.int64)).reshape(-1)
        size *= one.shape[1]
    share = mass / np.bincount(col, minlength=size)
    return Weights(*entries, size, anchors, np.bincount(row, share[col], minlength=len(anchors)))


def _product(
    axes: Sequence[Float[np.ndarray, "_ _"]],
) -> tuple[Index, Index, Float[np.ndarray, " entry"]]:
    """(row, col, value) of the Kronecker product, by row, then column."""
    row, col = np.zeros(1, np.int64), np.zeros(1, np.int64)
    value = np.ones(1)
    for matrix in axes:
        out, n = matrix.shape
        i, j = np.nonzero(matrix)
        row = (row[:, None] * out + i).reshape(-1)
        col = (col[:, None] * n + j).reshape(-1)
        value = (value[:, None] * matrix[i, j]).reshape(-1)
    order = np.lexsort((col, row))
    return row[order], col[order], value[order]
