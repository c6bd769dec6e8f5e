"""Sums of tiles over groups of keys: cheap where a group is a run of neighbours, as frames are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

RUN = 32  # a run of fewer columns is left to the matrix product


class KeyGroups:
    """Groups of columns (sorted indices), which may overlap and need not cover all columns.

    Runs of equal length that follow each other, such as the frames of a clip, are one strided sum
    (a tenth of the cost of a product with a one-hot matrix); the other groups are that product
    over the columns they use.
    """

    def __init__(self, groups: Sequence[Tensor], columns: int) -> None:
        self.chains: list[list[int]] = []  # [first group, number of groups, first column, length]
        others = []
        for number, group in enumerate(groups):
            length = len(group)
            first, last = (int(group[0]), int(group[-1])) if length else (0, -1)
            if length < RUN or last - first + 1 != length:
                others.append(number)
                continue
            chain = self.chains[-1] if self.chains else [-1, 0, 0, 0]
            follows = chain[0] + chain[1] == number and chain[2] + chain[1] * chain[3] == first
            if follows and chain[3] == length:
                chain[1] += 1
            else:
                self.chains.append([number, 1, first, length])
        if not others:
            self.others = None
            return
        device = groups[0].device
        onehot = torch.zeros(columns, len(others), device=device)
        for number, other in enumerate(others):
            onehot[groups[other], number] = 1
        used = onehot.any(1).nonzero()[:, 0]
        self.others = torch.tensor(others, device=device)
        self.columns, self.onehot = used, onehot[used]
        # How many of the used columns lie in a tile of each width.
        self.inside = onehot.any(1).cumsum(0).tolist()

    def sum(self, e: Float[Tensor, "head row key"], out: Float[Tensor, "head row group"]) -> None:
        """Write each group's sum; columns from the tile's width on count as 0."""
        width = e.shape[-1]
        for number, count, first, length in self.chains:
            whole = min(count, max(0, width - first) // length)
            edge = first + whole * length
            if whole:
                parts = e[..., first:edge].unflatten(-1, (whole, length))
                out[..., number : number + whole] = parts.sum(-1)
            if whole < count:
                out[..., number + whole : number + count] = 0
                if edge < width:
                    out[..., number + whole] = e[..., edge:width].sum(-1)
        if self.others is not None:
            inside = self.inside[width - 1]
            seen = e.index_select(-1, self.columns[:inside])
            out[..., self.others] = seen @ self.onehot[:inside]
