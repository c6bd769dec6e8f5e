"""Scores by a text: attention from its tokens, and similarity with its embedding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score
from probe.ablate.scores_attention import ROWS, AttentionScore, query_rows, received
from probe.errors import ProbeError
from probe.models.selection import Selection
from probe.spec import Spec

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session
    from probe.models.layout import Layout

EQUAL = 1e-6  # relative difference below which relevances count as equal


@dataclass(frozen=True)
class Raters(Spec):
    """The text tokens that see the video: their relevance exceeds the average (SparseVLM, Zhang
    et al. 2024, arXiv 2410.04417).

    Relevance of a text token is the mean over visual tokens of softmax over text tokens of the
    inner product of their embeddings, at the input of the decoder. Where all are equally relevant
    none exceeds the average; then all of them rate.

    Attributes:
        among: the text tokens; "after" is all text behind the visual tokens, as in SparseVLM's
            code.
    """

    among: Selection = "question"

    def positions(self, session: Session, x: Tensor, visual: np.ndarray) -> np.ndarray:
        """Layout positions of the raters.

        Args:
            session: the run.
            x: [row, channel], the merged embeddings of rows `session.positions[0]`.
            visual: layout positions of the visual tokens.
        """
        text = text_positions(session.layout, self.among)
        text = np.intersect1d(text, session.positions[0])
        seen, words = (rows_at(session, x, p).float() for p in (visual, text))
        relevance = torch.zeros(len(text), dtype=torch.float64, device=x.device)
        for part in seen.split(1024):
            relevance += (part @ words.T).softmax(-1).double().sum(0)
        above = relevance > relevance.mean() * (1 + EQUAL)
        return text[above.cpu().numpy()] if bool(above.any()) else text


@dataclass(frozen=True)
class TextQuery(AttentionScore):
    """Attention from the tokens of a text to the visual token.

    Attributes:
        layer: as in `LastQuery`.
        queries: a selection of text tokens, or `Raters()`.
        agg: "mean" over heads and queries (SparseVLM), or "max" over both (PruneVid, Huang et al.
            2024, arXiv 2412.16117).
        heads: "all", or a number: that many heads, those whose queries give the candidates most
            attention; ties go to the first.
    """

    queries: Selection | Raters = "question"
    agg: str = "mean"
    heads: str | int = "all"

    def check(self, session: Session) -> None:
        """Refuse words and numbers that this model does not have."""
        if self.agg not in ("mean", "max"):
            raise ProbeError(f'{self.kind}: agg="{self.agg}"; there are mean and max')
        most = session.model.n_heads
        whole = isinstance(self.heads, int) and not isinstance(self.heads, bool)
        if self.heads != "all" and not (whole and 1 <= int(self.heads) <= most):
            raise ProbeError(f'{self.kind}: heads={self.heads!r}; write "all", or 1 to {most}')
        if isinstance(self.queries, Raters):
            text_positions(session.layout, self.queries.among)
        else:
            session.layout.select(self.queries)

    def resolved(self, session: Session, x: Tensor, candidates: np.ndarray) -> TextQuery:
        """The same with the raters found, once the merged embeddings are known."""
        if not isinstance(self.queries, Raters):
            return self
        found = self.queries.positions(session, x, candidates)
        return replace(self, queries=tuple(found.tolist()))

    def first_layer(self, site: int) -> int:
        return 0 if isinstance(self.queries, Raters) else super().first_layer(site)

    def read(self, session: Session, call: AttentionCall, positions: np.ndarray) -> Tensor:
        if isinstance(self.queries, Raters):
            raise ProbeError(f"{self.kind}: raters are found at the input of the decoder")
        rows = query_rows(session, call, self.queries, self.kind)
        columns = call.key_index(positions)
        if self.agg == "mean":
            values = received(call, rows)[:, columns]
            return values[self._chosen(values)].mean(0)
        mass = torch.zeros(call.heads, len(columns), device=call.key.device)
        most = torch.zeros_like(mass)
        for part in rows.split(ROWS):
            weights = call.scores(part).softmax(-1)[:, :, columns]
            mass += weights.sum(1)
            most = torch.maximum(most, weights.amax(1))
        return most[self._chosen(mass)].amax(0)

    def _chosen(self, mass: Tensor) -> Tensor:
        """Numbers of the heads that count, from [head, candidate]."""
        order = mass.sum(-1).argsort(descending=True, stable=True)
        return order if self.heads == "all" else order[: int(self.heads)]


@dataclass(frozen=True)
class TextSimilarity(Score):
    """Cosine of the visual token with the mean embedding of a text, at the input of the decoder.

    Stands for the similarity in CLIP's joint space of images and text with which PPLLaVA (Liu et
    al. 2024, arXiv 2411.02327) weights tokens: the text tower of CLIP is no part of these models.

    Attributes:
        queries: the text.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"embedding"})
    proxy: ClassVar[str] = "stands for the similarity with CLIP's embedding of the text"

    queries: Selection = "question"

    def check(self, session: Session) -> None:
        """Refuse a text that this prompt does not have."""
        session.layout.select(self.queries)

    def embedded(self, session: Session, x: Tensor, positions: np.ndarray) -> Tensor:
        """[position], from the merged embeddings [row, channel]."""
        text = np.intersect1d(session.layout.select(self.queries), session.positions[0])
        mean = normalize(rows_at(session, x, text).float().mean(0), dim=-1)
        return normalize(rows_at(session, x, positions).float(), dim=-1) @ mean

    def score(self, c: Candidates) -> Tensor:
        return c.readings[self].double()


def text_positions(layout: Layout, among: Selection) -> np.ndarray:
    """Positions of a selection of text; "after" selects all text behind the visual tokens.

    Raises:
        ProbeError: there is none.
    """
    if among != "after":
        return layout.select(among)
    visual = np.flatnonzero(layout.visual >= 0)
    text = layout.select("text")
    text = text[text > (visual[-1] if len(visual) else -1)]
    if not len(text):
        raise ProbeError('"after": there is no text behind the visual tokens of this prompt')
    return text


def rows_at(session: Session, x: Tensor, positions: np.ndarray, layer: int = 0) -> Tensor:
    """Rows of x, the input of a layer, at layout positions."""
    rows = np.searchsorted(session.positions[layer], positions)
    return x[torch.as_tensor(rows, device=x.device)]
