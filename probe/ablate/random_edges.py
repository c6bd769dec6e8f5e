"""Edges drawn at random, as many as a given set has: the control of a knockout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.models.layout import Layout

Ends = Sequence[tuple[np.ndarray, np.ndarray]]


class RandomEdges:
    """A draw without replacement among causal edges, the same whatever comes after the prompt.

    The prompt's edges are drawn together; each later row is drawn by itself, from a seed of its
    own, so that decoding token by token and a full forward cut the same.

    Attributes:
        rows: layout positions that lose an edge, sorted.
        count: how many edges are drawn.
    """

    def __init__(self, layout: Layout, edges: Ends, pool: Ends, seed: int, owner: str) -> None:
        keys: dict[int, np.ndarray] = {}
        prompt = layout.last + 1
        wanted = [len(_keys(edges, row, False)) for row in range(prompt)]
        sizes = np.array([len(_keys(pool, row, True)) for row in range(prompt)])
        if sum(wanted) > sizes.sum():
            raise ProbeError(
                f"{owner}: {sum(wanted)} edges cannot be drawn from a pool of {sizes.sum()}"
            )
        random = np.random.default_rng(seed)
        drawn = np.sort(random.choice(int(sizes.sum()), sum(wanted), replace=False))
        ends = np.cumsum(sizes)
        of = np.searchsorted(ends, drawn, side="right")
        for row in np.unique(of):
            inside = drawn[of == row] - (ends[row] - sizes[row])
            keys[int(row)] = _keys(pool, int(row), True)[inside]
        for row in range(prompt, len(layout)):
            among = _keys(pool, row, True)
            number = min(len(_keys(edges, row, False)), len(among))
            if number:
                own = np.random.default_rng([seed, row])
                keys[row] = np.sort(own.choice(among, number, replace=False))
        self.rows = np.array(sorted(keys), dtype=np.int64)
        self._key = np.concatenate([keys[int(row)] for row in self.rows])
        self._end = np.cumsum([len(keys[int(row)]) for row in self.rows])
        self.count = len(self._key)

    def mask(self, call: AttentionCall, rows: Tensor) -> Tensor:
        """[row, key] of a call: True on drawn edges."""
        number = np.searchsorted(self.rows, call.positions[rows.cpu().numpy()])
        first = np.concatenate([[0], self._end])[number]
        many = self._end[number] - first
        edge = np.repeat(first - np.cumsum(many) + many, many) + np.arange(many.sum())
        row, key = np.repeat(np.arange(len(number)), many), self._key[edge]
        column = np.searchsorted(call.key_positions, key).clip(max=len(call.key_positions) - 1)
        there = call.key_positions[column] == key
        cut = torch.zeros(len(rows), len(call.key_positions), dtype=torch.bool)
        cut[torch.as_tensor(row[there]), torch.as_tensor(column[there])] = True
        return cut.to(rows.device)


def _keys(edges: Ends, row: int, others: bool) -> np.ndarray:
    """Keys, up to a row, whose edge into it is among some; `others` leaves the row itself out."""
    parts = [
        source[: np.searchsorted(source, row, side="left" if others else "right")]
        for source, destination in edges
        if (at := np.searchsorted(destination, row)) < len(destination) and destination[at] == row
    ]
    if len(parts) == 1:
        return parts[0]
    return np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int64)
