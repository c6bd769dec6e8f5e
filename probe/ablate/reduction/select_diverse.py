"""Selections of tokens far from one another."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.compare import Points, blocks, features, keys_of
from probe.ablate.reduction.parts import Chosen, Exactly, Index, Score, Select
from probe.ablate.reduction.select import best


@dataclass(frozen=True)
class MaxMin(Exactly):
    """Farthest points, in the order in which they are picked: the first is the token farthest from
    its nearest neighbour, each next the one whose nearest picked token is farthest. Distance is
    1 - cosine; ties go to the earlier token. DivPrune (Alvar et al., 2025).

    Attributes:
        of: compare "x" or "key".
    """

    of: str = "x"

    def leaves(self) -> tuple[Score, ...]:
        return keys_of(self.of)

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        count = min(count, len(group))
        kept = np.zeros(count, np.int64)
        if count == 0:
            return Chosen(kept, kept)
        points = Points.of(features(c, self.of, self.kind)[torch.as_tensor(group)]).tabled()
        everyone = np.arange(len(group))
        far = torch.full((len(group),), torch.inf, dtype=torch.float64)
        for i in range(count):
            kept[i] = int(far.argmax()) if i else _loneliest(points)
            distance = points.distance(kept[i : i + 1], everyone)[0].cpu()
            far = torch.minimum(far, distance)
            far[kept[: i + 1]] = -torch.inf
        return Chosen(group[kept], group[kept])


def _loneliest(points: Points) -> int:
    """The token farthest from its nearest neighbour. Where there are many, it is looked for in
    float32 first, and decided in float64 among those that come near.
    """
    everyone = np.arange(len(points.x))
    if points.near is not None or len(everyone) == 1:
        return int(_isolation(points, everyone).argmax())
    rough = _isolation(replace(points, x=points.x.float()), everyone)
    some = np.flatnonzero(rough >= rough.max() - 0.005)  # TF32 may be on
    return int(some[int(_isolation(points, some).argmax())])


def _isolation(points: Points, rows: Index) -> torch.Tensor:
    """Distance of each of these tokens to its nearest neighbour."""
    everyone, found = np.arange(len(points.x)), []
    for block in blocks(rows, len(everyone)):
        distance = points.distance(block, everyone).cpu()
        distance[np.arange(len(block)), block] = torch.inf
        found.append(distance.min(dim=1).values)
    return torch.cat(found)


@dataclass(frozen=True)
class Cover(Select):
    """Tokens by falling score, each kept unless a kept one is nearer than `u` (1 - cosine), until
    the count is reached or none is left. UniComp (2025).

    Without a budget, kept tokens are at least `u` apart and every other is nearer than that to a
    kept one. At u = 0 all stay.

    Attributes:
        u: distance.
        of: compare "x" or "key".
    """

    u: float
    of: str = "x"

    def leaves(self) -> tuple[Score, ...]:
        return keys_of(self.of)

    @property
    def inert(self) -> bool:
        return self.u <= 0

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        points = Points.of(features(c, self.of, self.kind)[torch.as_tensor(group)]).tabled()
        everyone = np.arange(len(group))
        free = np.ones(len(group), bool)
        kept: list[int] = []
        for i in best(everyone, score[group]):
            if len(kept) == count:
                break
            if free[i]:
                kept.append(i)
                near = points.distance(np.array([i]), everyone)[0].cpu().numpy() < self.u
                free &= ~near
        chosen = group[np.array(kept, dtype=np.int64)]
        return Chosen(chosen, chosen)
