"""Parts that compare tokens by the keys of a layer of the vision tower that they name."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.merge import Merge
from probe.ablate.reduction.merge_bipartite import Bipartite
from probe.ablate.reduction.parts import Chosen, Index, Pooling, Rest, Score
from probe.ablate.reduction.weights import Weights
from probe.ablate.scores_encoder import Keys


@dataclass(frozen=True)
class KeyMerge(Rest):
    """`Merge` by the cosine of the keys of one layer of the vision tower.

    Attributes:
        weight: as in `Merge`.
        keys: which keys; the mean over heads in the layer before the last in VisionZip (Yang et al.
            2024, arXiv 2412.04467).
    """

    weight: str = "mean"
    keys: Keys = Keys(layer=-2, heads="mean")

    def leaves(self) -> tuple[Score, ...]:
        return (self.keys,)

    def rows(self, c: Candidates, group: Index, chosen: Chosen, score: np.ndarray) -> list[tuple]:
        return Merge("key", self.weight).rows(with_keys(c, self.keys), group, chosen, score)


@dataclass(frozen=True)
class KeyBipartite(Pooling):
    """`Bipartite` by the keys of one layer of the vision tower (ToMe, Bolya et al. 2022, arXiv
    2210.09461).

    Attributes:
        r: merged in a round.
        keys: which keys.
        order: as in `Bipartite`.
    """

    r: int = 8
    keys: Keys = Keys(heads="mean")
    order: str = "raster"

    @property
    def inert(self) -> bool:
        return self.r == 0

    def leaves(self) -> tuple[Score, ...]:
        return (self.keys,)

    def weights(self, c: Candidates) -> Weights:
        return Bipartite(self.r, of="key", order=self.order).weights(with_keys(c, self.keys))


def with_keys(c: Candidates, keys: Keys) -> Candidates:
    """The candidates, with these keys as those to compare by."""
    read = c.readings.get(keys)
    return c if read is None else replace(c, readings=c.readings | {"encoder_key": read})
