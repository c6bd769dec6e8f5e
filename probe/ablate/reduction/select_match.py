"""Selections that drop what resembles something else: matches, pivots, uniform tiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.compare import Points, features, keys_of
from probe.ablate.reduction.parts import Chosen, Exactly, Index, Score, Select
from probe.ablate.reduction.select import best
from probe.errors import ProbeError


@dataclass(frozen=True)
class EvenOdd(Exactly):
    """Duplicates leave: in each round every even token finds its most similar odd one, and the `r`
    even tokens with the best matches are deleted, until the count is reached. Ties go to the
    earlier token. VisPruner (Zhang et al., 2025).

    Attributes:
        r: deleted in a round, at most half of what there is.
        of: compare "x" or "key".
        order: of the tokens in a round: "raster", or "published" (first by falling score, then even
            ones by falling similarity of their match, then odd ones).
    """

    r: int = 8
    of: str = "x"
    order: str = "raster"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.r < 1:
            raise ProbeError(f"{self.kind}: r={self.r}; it is at least 1")
        if self.order not in ("raster", "published"):
            raise ProbeError(f'{self.kind}: order="{self.order}" is not "raster" or "published"')

    def leaves(self) -> tuple[Score, ...]:
        return keys_of(self.of)

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        points = Points.of(features(c, self.of, self.kind)[torch.as_tensor(group)]).tabled()
        left = np.arange(len(group))
        if self.order == "published":
            left = best(left, score[group])
        while len(left) > max(count, 1):
            even, odd = left[::2], left[1::2]
            _, similar = points.nearest(even, odd)
            ranked = even[np.argsort(-similar, kind="stable")]
            stay = ranked[min(self.r, len(left) - count, len(left) // 2) :]
            left = np.concatenate([stay, odd])
            if self.order == "raster":
                left = np.sort(left)
        kept = group[left[:count]]
        return Chosen(kept, kept)


@dataclass(frozen=True)
class Pivots(Exactly):
    """Pivot tokens, and for each pivot in turn the tokens least similar to it among what is left,
    ⌊count / pivots⌋ each. Ties go to the earlier token. DART (Wen et al., 2025).

    Visual pivots are the best by score, and stay in addition: with 4 + 4 pivots, 4 + 8 ⌊count / 8⌋
    tokens stay. Text pivots come after them, and are read from `c.readings["text_pivots"]`
    [token, pivot], the cosines of each candidate with each of them. A count of the whole group
    keeps all, where the code would fail.

    Attributes:
        visual, text: number of pivots.
        of: compare with visual pivots by "x" or "key".
    """

    visual: int = 4
    text: int = 4
    of: str = "x"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.visual < 0 or self.text < 0 or self.visual + self.text == 0:
            raise ProbeError(f"{self.kind}: it needs at least one pivot, not {self}")

    def leaves(self) -> tuple[Score, ...]:
        from probe.ablate.scores_pivots import TextPivots

        pivots = (TextPivots(count=self.text),) if self.text else ()
        return (*keys_of(self.of), *pivots)

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        if count >= len(group):
            return Chosen(group, group)
        pivots = best(group, score)[: min(self.visual, count)]
        kept, left = [pivots], np.setdiff1d(group, pivots)
        for similar in (*self._visual(c, pivots), *self._text(c)):
            order = left[np.argsort(similar[left], kind="stable")]
            kept.append(order[: count // (self.visual + self.text)])
            left = np.setdiff1d(left, kept[-1])
        chosen = np.concatenate(kept)
        return Chosen(chosen, chosen)

    def _visual(self, c: Candidates, pivots: Index) -> np.ndarray:
        """Similarity [pivot, token] with the visual pivots."""
        points = Points.of(features(c, self.of, self.kind))
        return points.similarity(pivots, np.arange(len(c))).cpu().numpy()

    def _text(self, c: Candidates) -> np.ndarray:
        """Similarity [pivot, token] with the text pivots."""
        if self.text == 0:
            return np.zeros((0, len(c)))
        found = c.readings.get("text_pivots")
        if found is None or found.shape[1] < self.text:
            raise ProbeError(
                f"{self.kind}: text={self.text} needs the cosines with as many text tokens, which "
                "were not read here; use text=0"
            )
        return found[:, : self.text].detach().double().cpu().numpy().T


@dataclass(frozen=True)
class Alike(Select):
    """One token of a group whose tokens resemble each other, all of any other group.

    Spatial merge of MustDrop (Liu et al., 2024), with `Tiles` as segmentation.

    Attributes:
        tau: smallest mean cosine over the pairs of the group; above 1 all stay.
        keep: the "last" token, or the "first".
        of: compare "x" or "key".
    """

    tau: float
    keep: str = "last"
    of: str = "x"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep not in ("first", "last"):
            raise ProbeError(f'{self.kind}: keep="{self.keep}" is not "first" or "last"')

    def leaves(self) -> tuple[Score, ...]:
        return keys_of(self.of)

    @property
    def inert(self) -> bool:
        return self.tau > 1

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        if len(group) < 2:
            return Chosen(group, group)
        x = Points.of(features(c, self.of, self.kind)[torch.as_tensor(group)]).x
        pairs = x.sum(0).square().sum() - x.square().sum()
        mean = round(float(pairs) / (len(group) * (len(group) - 1)), 9)
        one = group[-1:] if self.keep == "last" else group[:1]
        kept = one if mean >= self.tau else group
        return Chosen(kept, kept)
