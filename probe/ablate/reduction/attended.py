"""Tokens that a text attends to: by share or by peak, half the heads, and a key set that stays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probe.ablate.reduction.budget_layers import original
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Chosen, Index, Score, Select
from probe.ablate.reduction.select import best, leaves_of
from probe.ablate.scores_attention import ROWS, AttentionScore, query_rows
from probe.ablate.scores_text import TextQuery
from probe.errors import ProbeError
from probe.models.selection import Selection

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session


@dataclass(frozen=True)
class TextPeak(AttentionScore):
    """The most attention that any token of a text gives to the visual token, mean over heads.

    Attributes:
        layer: as in `LastQuery`.
        queries: a selection of text tokens.
    """

    queries: Selection = "question"

    def check(self, session: Session) -> None:
        """Refuse a text that this prompt does not have."""
        session.layout.select(self.queries)

    def read(self, session: Session, call: AttentionCall, positions: np.ndarray) -> Tensor:
        columns = call.key_index(positions)
        parts = query_rows(session, call, self.queries, self.kind).split(ROWS)
        peaks = [call.scores(part).softmax(-1)[:, :, columns].mean(0).amax(0) for part in parts]
        return torch.stack(peaks).amax(0)


@dataclass(frozen=True)
class TextRows(TextQuery):
    """Not a score: attention from each token of a text to the visual token, mean over heads, a row
    [query] for each; for `Adaptive("rank")` (SparseVLM, Zhang et al. 2024, arXiv 2410.04417).
    """

    def read(self, session: Session, call: AttentionCall, positions: np.ndarray) -> Tensor:
        columns = call.key_index(positions)
        parts = query_rows(session, call, self._queries(), self.kind).split(ROWS)
        rows = [call.scores(part).softmax(-1)[:, :, columns].mean(0) for part in parts]
        return torch.cat(rows).T

    def score(self, c: Candidates) -> Tensor:
        raise ProbeError(f"{self.kind}: rows of attention are no score; use TextQuery()")

    def _queries(self) -> Selection:
        found: Selection = self.queries  # pyright: ignore[reportAssignmentType]
        return found


@dataclass(frozen=True)
class HalfTextQuery(TextQuery):
    """`TextQuery` by half of the heads, rounded down: those whose queries give the candidates most
    attention (SparseVLM v2); `heads` is not looked at.
    """

    def _chosen(self, mass: Tensor) -> Tensor:
        order = mass.sum(-1).argsort(descending=True, stable=True)
        return order[: max(1, len(order) // 2)]


@dataclass(frozen=True)
class Attended(Select):
    """Tokens with at least this share of the text's attention to the group, or on which a token of
    the text has at least this much of its own. MustDrop (Liu et al. 2024, arXiv 2411.10803).

    Attributes:
        share: of the attention that the group gets from the text.
        peak: the most attention of a single token of the text.
        queries: the text.
    """

    share: float = 1.0
    peak: float = 0.0
    queries: Selection = "question"

    @property
    def inert(self) -> bool:
        return self.peak <= 0 or self.share <= 0

    def leaves(self) -> tuple[Score, ...]:
        return (TextQuery(queries=self.queries), TextPeak(queries=self.queries))

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        mass, peak = (leaf.score(c).numpy()[group] for leaf in self.leaves())
        total = mass.sum()
        kept = group[(mass >= self.share * total) | (peak >= self.peak)]
        return Chosen(kept, kept)


@dataclass(frozen=True)
class KeySet(Select):
    """A key set that always stays, beside what `select` chooses: of each frame the best by another
    score, a part of the tokens that a frame had at first. In several reductions one after the
    other it stays the same, because its tokens carry their score along. MustDrop.

    Attributes:
        select: chooses among all.
        score: of the key set.
        part: of the original tokens of a frame, rounded up: .08 of 576 are 47.
    """

    select: Select
    score: Score
    part: float = 0.08

    @property
    def inert(self) -> bool:
        return self.select.inert or self.part >= 1

    def leaves(self) -> tuple[Score, ...]:
        return (*self.score.leaves(), *leaves_of(self.select))

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        values = self.score.score(c).detach().double().cpu().numpy()
        frames = np.unique(c.frame)
        size = math.ceil(self.part * original(c) / max(1, len(frames)) - 1e-9)
        keys = [best(group[c.frame[group] == frame], values)[:size] for frame in frames]
        chosen = self.select.choose(c, group, score, count).centres
        kept = np.union1d(np.concatenate([group[:0], *keys]), chosen)
        return Chosen(kept, kept)
