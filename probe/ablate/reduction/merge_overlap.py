"""Merges in which a token may end up in several rows: neighbourhoods of the centres."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
        def near(points: Points, centre: np.ndarray, everyone: np.ndarray) -> np.ndarray:
            return points.distance(centre, everyone)[0].cpu().numpy() < self.u

        rows = []
        for centre, cols, mass in _around(c, group, chosen, self, near):
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
        def near(points: Points, centre: np.ndarray, everyone: np.ndarray) -> np.ndarray:
            similar = points.similarity(centre, everyone)[0].cpu().numpy()
            similar[centre] = -np.inf
            best = np.argsort(-similar, kind="stable")[: min(self.k, len(group) - 1)]
            return np.isin(everyone, best)

        rows = []
        for centre, cols, mass in _around(c, group, chosen, self, near):
            values = np.where(cols == centre, 1.0, score[cols])
            rows.append((centre, cols, values, mass))
        return rows


def _around(
    c: Candidates, group: Index, chosen: Chosen, rest: Neighbourhood | Gather, near: Callable
) -> Iterator[tuple[int, Index, float]]:
    """Each centre with the tokens near it, itself among them, and the mass of its row: that of
    each token is shared equally by the rows in which it is.

    Args:
        c, group, chosen: as `rest` gets them.
        rest: says what is compared.
        near: (points, number of a centre [1], numbers of all) -> [token], True for those near it.
    """
    points = Points.of(features(c, rest.of, rest.kind)[torch.as_tensor(group)]).tabled()
    everyone, centres = np.arange(len(group)), np.searchsorted(group, chosen.centres)
    inside = np.zeros((len(centres), len(group)), bool)
    for row, centre in enumerate(centres):
        inside[row] = near(points, np.array([centre]), everyone)
        inside[row, centre] = True
    masses = inside @ (c.mass[group] / np.maximum(1, inside.sum(0)))
    for centre, mine, mass in zip(chosen.centres, inside, masses, strict=True):
        yield centre, group[mine], mass
