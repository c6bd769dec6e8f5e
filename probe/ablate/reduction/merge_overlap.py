"""Merges in which a token may end up in several rows: neighbourhoods of the centres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.compare import Points, features, keys_of
from probe.ablate.reduction.parts import Chosen, Index, Rest, Score
from probe.errors import ProbeError


@dataclass(frozen=True)
class Neighbourhood(Rest):
    """beta times the centre plus (1 - beta) times the mean of all tokens of the group nearer than
    `u` (1 - cosine), the centre among them. Neighbourhoods overlap. UniComp (2025).

    A centre is always in its own mean, so that u = 0 changes nothing; its code then halves it.

    Attributes:
        u: distance.
        beta: weight of the centre.
        of: compare "x" or "key".
    """

    u: float
    beta: float = 0.5
    of: str = "x"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta <= 1:
            raise ProbeError(f"{self.kind}: beta={self.beta}; it is a fraction from 0 to 1")

    def leaves(self) -> tuple[Score, ...]:
        return keys_of(self.of)

    def rows(self, c: Candidates, group: Index, chosen: Chosen, score: np.ndarray) -> list[tuple]:
        points = Points.of(features(c, self.of, self.kind)[torch.as_tensor(group)]).tabled()
        everyone, centres = np.arange(len(group)), np.searchsorted(group, chosen.centres)
        near = np.zeros((len(centres), len(group)), bool)
        for row, centre in enumerate(centres):
            near[row] = points.distance(np.array([centre]), everyone)[0].cpu().numpy() < self.u
            near[row, centre] = True
        rows = []
        for centre, inside, mass in zip(chosen.centres, near, _masses(near, c, group), strict=True):
            cols = group[inside]
            values = np.full(len(cols), (1 - self.beta) / len(cols))
            values[cols == centre] += self.beta
            rows.append((centre, cols, values if len(cols) > 1 else np.ones(1), mass))
        return rows


@dataclass(frozen=True)
class Gather(Rest):
    """The centre plus the sum of score times feature over the `k` tokens of the group most similar
    to it, other centres among them. Rows overlap, and do not sum to 1: norms grow.

    LLaVA-PruMerge (Shang et al., 2024), with attention of the CLS token as score.

    Attributes:
        k: neighbours, or all where there are fewer.
        of: compare "key" or "x".
    """

    k: int = 32
    of: str = "key"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 0:
            raise ProbeError(f"{self.kind}: k={self.k}; it is a count")

    def leaves(self) -> tuple[Score, ...]:
        return keys_of(self.of)

    def rows(self, c: Candidates, group: Index, chosen: Chosen, score: np.ndarray) -> list[tuple]:
        points = Points.of(features(c, self.of, self.kind)[torch.as_tensor(group)]).tabled()
        everyone, centres = np.arange(len(group)), np.searchsorted(group, chosen.centres)
        near = np.zeros((len(centres), len(group)), bool)
        for row, centre in enumerate(centres):
            similar = points.similarity(np.array([centre]), everyone)[0].cpu().numpy()
            similar[centre] = -np.inf
            count = min(self.k, len(group) - 1)
            near[row, np.argsort(-similar, kind="stable")[:count]] = True
            near[row, centre] = True
        rows = []
        for centre, inside, mass in zip(chosen.centres, near, _masses(near, c, group), strict=True):
            cols = group[inside]
            values = np.where(cols == centre, 1.0, score[cols])
            rows.append((centre, cols, values, mass))
        return rows


def _masses(near: np.ndarray, c: Candidates, group: Index) -> np.ndarray:
    """Mass of each row: that of each token is shared equally by the rows in which it is."""
    share = c.mass[group] / np.maximum(1, near.sum(0))
    return near @ share
