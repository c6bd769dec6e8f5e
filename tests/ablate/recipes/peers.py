"""Fields of features, what scores would have read there, and density peaks by plain loops."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from probe.ablate.reduction.build import weights
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.weights import Weights
from probe.ablate.scores_encoder import Keys
from probe.ablate.scores_pivots import TextPivots

FIELDS = ["random", "clustered", "constant", "drifting"]


def field(kind: str, time: int = 6, rows: int = 3, cols: int = 4, seed: int = 0) -> torch.Tensor:
    """Features [time, row, col, channel]."""
    g = torch.Generator().manual_seed(seed)
    shape = (time, rows, cols, 8)
    noise = torch.randn(shape, generator=g, dtype=torch.float64)
    if kind == "random":
        return noise
    if kind == "constant":
        return torch.ones(shape, dtype=torch.float64) * torch.linspace(1, 2, 8, dtype=torch.float64)
    if kind == "clustered":
        centres = torch.randn(5, 8, generator=g, dtype=torch.float64)
        which = torch.randint(5, shape[:3], generator=g)
        return centres[which] + 0.02 * noise
    still = torch.randn(1, rows, cols, 8, generator=g, dtype=torch.float64)  # drifting
    return still + 0.15 * noise.cumsum(0)


def seen(reduction: Any, x: torch.Tensor) -> Candidates:
    """Candidates with a reading for every score; equal features have equal readings."""
    c = Candidates.grid(x)
    g = torch.Generator().manual_seed(99)
    readings = {}
    for leaf in reduction.leaves:
        width = leaf.count if isinstance(leaf, TextPivots) else 6 if isinstance(leaf, Keys) else 1
        mixed = torch.randn(x.shape[-1], width, generator=g, dtype=torch.float64)
        made = (c.x[:, :, None] * mixed).sum(1).round(decimals=6)
        if isinstance(leaf, Keys):
            readings["encoder_key"] = readings[leaf] = made
        elif isinstance(leaf, TextPivots):
            readings["text_pivots"] = made.tanh()
        elif leaf.reads:
            readings[leaf] = made[:, 0].sigmoid().round(decimals=6)
    return Candidates(**{**vars(c), "readings": readings, "total": len(c)})


def made(reduction: Any, c: Candidates) -> Weights:
    """What the reduction does with them."""
    return weights(reduction.steps, c, reduction.order)


def cos(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine, at nine decimals."""
    return round(float(a @ b) / (math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))), 9)


def top(tokens: Sequence[int], score: Sequence[float] | np.ndarray, count: int) -> list[int]:
    """The best by score; ties go to the earlier."""
    return sorted(tokens, key=lambda i: (-round(float(score[i]), 9), i))[:count]


def peaks(x: np.ndarray, tokens: Sequence[int], count: int, k: int) -> list[int]:
    """Density peaks by loops over all pairs."""
    n, width = len(tokens), math.sqrt(x.shape[1])
    # in the unit of the longest vector, so that equal ones are exactly 0 apart
    size = max(float(np.linalg.norm(x[i])) for i in tokens)
    far = np.zeros((n, n))
    for a in range(n):
        for b in range(n):
            gap = float(((x[tokens[a]] - x[tokens[b]]) ** 2).sum()) / size**2
            far[a, b] = math.sqrt(round(gap, 9)) * size / width
    density = [round(math.exp(-float(np.mean(np.sort(row)[:k] ** 2))), 12) for row in far]
    value = []
    for a in range(n):
        better = [
            b
            for b in range(n)
            if density[b] > density[a] or (density[b] == density[a] > 0 and b < a)
        ]
        gap = min((far[a, b] for b in better), default=far.max())
        value.append(density[a] * gap)
    order = sorted(range(n), key=lambda a: (-value[a], a))
    return [tokens[a] for a in order[:count]]


def nearest(x: np.ndarray, token: int, centres: Sequence[int], metric: str = "distance") -> int:
    """The centre most alike; ties go to the earlier."""

    def unlike(centre: int) -> float:
        if metric == "cos":
            return -cos(x[token], x[centre])
        return round(float(((x[token] - x[centre]) ** 2).sum()), 7)

    return min(sorted(centres), key=lambda centre: (unlike(centre), centre))


def units(kept: Iterable[int]) -> dict[int, dict[int, float]]:
    """Rows of tokens as they are, for `same`."""
    return {i: {i: 1.0} for i in kept}


def rows_of(rows: Sequence[dict[int, float]], size: int) -> np.ndarray:
    """A dense matrix from {input: weight} of each output."""
    dense = np.zeros((len(rows), size))
    for number, row in enumerate(rows):
        for token, value in row.items():
            dense[number, token] += value
    return dense


def same(w: Weights, rows: dict[int, dict[int, float]]) -> None:
    """The weights are these: by anchor {input: weight}; the outputs in the order given."""
    assert w.anchor.tolist() == list(rows)
    np.testing.assert_allclose(w.dense(), rows_of(list(rows.values()), w.size), atol=1e-9)
