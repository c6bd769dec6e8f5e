"""Density peaks: centres that are dense, and far from anything denser."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.compare import Points, blocks, features, keys_of
from probe.ablate.reduction.parts import Chosen, Exactly, Index, Score
from probe.errors import ProbeError


@dataclass(frozen=True)
class DPCKNN(Exactly):
    """The largest density times distance to the nearest denser token. Density is
    exp(-mean of the squared distances to the k nearest, the token itself among them).

    Density peaks (Rodriguez and Laio, 2014; Du et al., 2016) as in the clustering of TCFormer (Zeng
    et al., 2022), which HoliTom, PruneVid, FastVID and SparseVLM use. They break ties of the
    density by random noise; here the earlier token counts as the denser one.

    Attributes:
        k: neighbours, or all where there are fewer; None for as many as there are centres
            (SparseVLM).
        capped: no more neighbours than there are centres (HoliTom).
        metric: "distance" (Euclidean over the square root of the number of channels) or "cos"
            (1 - cosine).
        of: compare "x" or "key".
    """

    k: int | None = 7
    capped: bool = False
    metric: str = "distance"
    of: str = "x"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k is not None and self.k < 1:
            raise ProbeError(f"{self.kind}: k={self.k}; it is at least 1")
        if self.metric not in ("distance", "cos"):
            raise ProbeError(f'{self.kind}: metric="{self.metric}" is not "distance" or "cos"')

    def leaves(self) -> tuple[Score, ...]:
        return keys_of(self.of)

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        if count == 0 or len(group) == 0:
            return Chosen(group[:0], group[:0])
        x = features(c, self.of, self.kind)[torch.as_tensor(group)]
        k = count if self.k is None else min(self.k, count) if self.capped else self.k
        density, gap = density_peaks(x, k, self.metric)
        order = torch.argsort(-(density * gap).cpu(), stable=True).numpy()
        kept = group[order[:count]]
        return Chosen(kept, kept)


def density_peaks(
    x: Float[Tensor, "token channel"], k: int, metric: str = "distance"
) -> tuple[Float[Tensor, " token"], Float[Tensor, " token"]]:
    """Density of each token, and its distance to the nearest denser one (the earlier one of equal
    density); for the densest, the largest distance that there is.

    Args:
        x: features.
        k: neighbours.
        metric: "distance" or "cos".
    """
    points, everyone = Points.of(x, metric).tabled(), np.arange(len(x))
    unit = 1.0 if metric == "cos" else x.shape[1] ** -0.5
    density, largest = torch.zeros(len(x), dtype=torch.float64), 0.0
    for block in blocks(everyone, len(x)):
        distance = points.distance(block, everyone).cpu() * unit
        nearest = distance.topk(min(k, len(x)), largest=False).values
        density[block] = (-nearest.square().mean(1)).exp()
        largest = max(largest, float(distance.max()))
    density = density.round(decimals=12)
    rank = torch.argsort(torch.argsort(-density, stable=True))
    gap = torch.zeros_like(density)
    for block in blocks(everyone, len(x)):
        distance = points.distance(block, everyone).cpu() * unit
        distance[rank[block][:, None] <= rank] = torch.inf
        gap[block] = distance.min(dim=1).values
    gap[rank == 0] = largest
    return density, gap
