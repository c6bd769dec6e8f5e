"""Weights: a reduction of tokens is a sparse matrix y = W x, an anchor and a mass for each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Weights:
    """A sparse matrix [out, token] in coordinate form, with an anchor and a mass for each row.

    Attributes:
        row, col, value: its entries; `row` numbers outputs, `col` inputs. No entry twice.
        size: number of input tokens.
        anchor: per output, the input whose place (position, cell, frame) it takes; no input twice.
        mass: per output, how many original tokens it stands for.
    """

    row: Int[np.ndarray, " entry"]
    col: Int[np.ndarray, " entry"]
    value: Float[np.ndarray, " entry"]
    size: int
    anchor: Int[np.ndarray, " out"]
    mass: Float[np.ndarray, " out"]

    @classmethod
    def selection(cls, kept: Sequence[int] | np.ndarray, size: int, mass=None) -> Weights:
        """Unit rows: the tokens `kept` in this order, the others dropped.

        Args:
            kept: numbers of inputs.
            size: number of inputs.
            mass: [size] of the inputs; 1 each by default.
        """
        kept = np.asarray(kept, dtype=np.int64)
        masses = np.ones(size) if mass is None else np.asarray(mass, dtype=float)
        return cls(np.arange(len(kept)), kept, np.ones(len(kept)), size, kept, masses[kept])

    @classmethod
    def of_rows(cls, rows: Sequence[tuple], size: int) -> Weights:
        """From (anchor, cols, values, mass) of each output row, in order."""
        counts = [len(cols) for _, cols, _, _ in rows]
        none = [np.zeros(0)]
        return cls(
            row=np.repeat(np.arange(len(rows)), counts),
            col=np.concatenate([*none, *(np.asarray(r[1]) for r in rows)]).astype(np.int64),
            value=np.concatenate([*none, *(np.asarray(r[2], dtype=float) for r in rows)]),
            size=size,
            anchor=np.array([r[0] for r in rows], dtype=np.int64),
            mass=np.array([r[3] for r in rows], dtype=float),
        )

    @classmethod
    def of_dense(cls, matrix: np.ndarray, anchor: np.ndarray, mass: np.ndarray) -> Weights:
        """From a dense matrix [out, token]."""
        row, col = np.nonzero(matrix)
        return cls(row, col, matrix[row, col].astype(float), matrix.shape[1], anchor, mass)

    @classmethod
    def stack(cls, parts: Sequence[Weights], size: int | None = None) -> Weights:
        """The outputs of several matrices over the same inputs, one after the other.

        Args:
            parts: the matrices.
            size: number of inputs, where there may be no matrix at all.
        """
        if not parts:
            return cls.selection([], size or 0)
        first = np.cumsum([0, *(len(part) for part in parts)])
        return cls(
            row=np.concatenate([p.row + f for p, f in zip(parts, first[:-1], strict=True)]),
            col=np.concatenate([p.col for p in parts]),
            value=np.concatenate([p.value for p in parts]),
            size=parts[0].size,
            anchor=np.concatenate([p.anchor for p in parts]),
            mass=np.concatenate([p.mass for p in parts]),
        )

    def __len__(self) -> int:
        return len(self.anchor)

    @property
    def is_selection(self) -> bool:
        """True where every output is its anchor, unchanged."""
        return (
            len(self.row) == len(self)
            and np.array_equal(self.row, np.arange(len(self)))
            and np.array_equal(self.col, self.anchor)
            and bool((self.value == 1).all())
        )

    @property
    def is_identity(self) -> bool:
        """True where every input goes on, unchanged and in order."""
        return self.is_selection and np.array_equal(self.anchor, np.arange(self.size))

    @property
    def gain(self) -> Float[np.ndarray, " out"]:
        """Row sums: 1 keeps a constant field as it is, above 1 inflates the norm."""
        return np.bincount(self.row, self.value, minlength=len(self))

    @property
    def coverage(self) -> Float[np.ndarray, " token"]:
        """Column sums: what is left of each input; 0 where nothing is."""
        return np.bincount(self.col, self.value, minlength=self.size)

    def dense(self) -> Float[np.ndarray, "out token"]:
        """The matrix."""
        matrix = np.zeros((len(self), self.size))
        np.add.at(matrix, (self.row, self.col), self.value)
        return matrix

    def apply(self, x: Float[Tensor, "token channel"]) -> Float[Tensor, "out channel"]:
        """W x: indexing where it is a selection (exact), in float32 or better otherwise."""
        if self.is_selection:
            return x[torch.as_tensor(self.anchor, device=x.device)]
        wide = torch.promote_types(x.dtype, torch.float32)
        entries = torch.as_tensor(np.stack([self.row, self.col]), device=x.device)
        value = torch.as_tensor(self.value, device=x.device, dtype=wide)
        size = (len(self), self.size)
        matrix = torch.sparse_coo_tensor(entries, value, size, check_invariants=True)
        return torch.sparse.mm(matrix, x.to(wide)).to(x.dtype)

    def __matmul__(self, first: Weights) -> Weights:
        """The product: `first`, then this."""
        if first.is_selection:
            return replace(
                self, col=first.anchor[self.col], size=first.size, anchor=first.anchor[self.anchor]
            )
        # Entries (i, j) of this meet entries (j, k) of the other: a join on j.
        order = np.argsort(first.row, kind="stable")
        count = np.bincount(first.row, minlength=len(first))
        start = np.cumsum(count) - count
        repeats = count[self.col]
        inner = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        entry = order[np.repeat(start[self.col], repeats) + inner]
        row, col = np.repeat(self.row, repeats), first.col[entry]
        value = np.repeat(self.value, repeats) * first.value[entry]
        key, place = np.unique(row * first.size + col, return_inverse=True)
        return Weights(
            row=key // first.size,
            col=key % first.size,
            value=np.bincount(place, value, minlength=len(key)),
            size=first.size,
            anchor=first.anchor[self.anchor],
            mass=self.mass,
        )

    def take(self, rows: np.ndarray) -> Weights:
        """Some of the outputs, in this order."""
        where = np.full(len(self), -1)
        where[rows] = np.arange(len(rows))
        inside = where[self.row] >= 0
        row, col, value = where[self.row[inside]], self.col[inside], self.value[inside]
        order = np.argsort(row, kind="stable")
        return Weights(
            row[order], col[order], value[order], self.size, self.anchor[rows], self.mass[rows]
        )

    def raster(self) -> Weights:
        """The outputs in the order of their anchors."""
        return self.take(np.argsort(self.anchor, kind="stable"))

    def within(self, places: np.ndarray, size: int) -> Weights:
        """The same matrix among `size` tokens, of which its inputs are those at `places`; the
        other tokens have no row.
        """
        return replace(self, col=places[self.col], size=size, anchor=places[self.anchor])
