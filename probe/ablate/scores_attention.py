"""Scores from the attention of a decoder layer: the last query, attention received, keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score
from probe.errors import ProbeError
from probe.models.selection import Selection

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session

ROWS = 64  # rows of attention weights at once: 28 heads x 64 x 8k keys in float32 are 57 MB
MANY = 512  # more rows than this go through one pass over all tiles


@dataclass(frozen=True)
class AttentionScore(Score):
    """Base: read in one decoder layer of the prefill, while that layer runs.

    Attributes:
        layer: 0-based; None for the one before the site. The site's own number reads the
            attention of that layer on the whole sequence, before the reduction.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"attention"})

    layer: int | None = None

    def attention_layer(self, site: int) -> int:
        """The layer it reads, for a reduction before layer `site`.

        Raises:
            ProbeError: a layer after the site, or none before it.
        """
        layer = site - 1 if self.layer is None else self.layer
        if layer < 0 and self.layer is None:
            raise ProbeError(
                f"{self.kind}: there is no attention before layer 0; use at=layer(1) or later, or "
                "score=Norm(), Uniform() or Random()"
            )
        if not isinstance(layer, int) or not 0 <= layer <= site:
            raise ProbeError(
                f"{self.kind}: layer={layer}; a reduction before layer {site} can read layers 0 "
                f"to {site}"
            )
        return layer

    def score(self, c: Candidates) -> Tensor:
        return c.readings[self].double()


@dataclass(frozen=True)
class LastQuery(AttentionScore):
    """Attention from the last prompt position, mean over heads.

    In the layer before the site it is FastV's (Chen et al. 2024, arXiv 2403.06764), in the site's
    own layer PyramidDrop's (Xing et al. 2024, arXiv 2410.17247). After the prompt it is the
    attention of the token that is being decoded.
    """

    def read(self, session: Session, call: AttentionCall, positions: np.ndarray) -> Tensor:
        last = session.layout.last if session.step == 0 else int(call.positions[-1])
        weights = call.weights(call.index(np.array([last])))[:, 0]
        return weights.mean(0)[call.key_index(positions)]


@dataclass(frozen=True)
class Received(AttentionScore):
    """Attention that the token receives, mean over heads and queries; a query that comes before
    the token counts with 0.

    Attributes:
        layer: as in `LastQuery`.
        queries: which positions ask.
    """

    queries: Selection = "all"

    def check(self, session: Session) -> None:
        """Refuse queries that this prompt does not have."""
        session.layout.select(self.queries)

    def read(self, session: Session, call: AttentionCall, positions: np.ndarray) -> Tensor:
        rows = query_rows(session, call, self.queries, self.kind)
        return received(call, rows).mean(0)[call.key_index(positions)]


@dataclass(frozen=True)
class KeyNorm(AttentionScore):
    """p-norm of the token's key vectors, all key heads side by side, as attention gets them.

    Attributes:
        layer: as in `LastQuery`.
        p: of the norm; 1 in DART (Wen et al. 2025, arXiv 2502.11494).
    """

    p: float = 1.0

    def read(self, session: Session, call: AttentionCall, positions: np.ndarray) -> Tensor:
        key = call.key[:, call.key_index(positions)].float()
        return key.transpose(0, 1).flatten(1).norm(p=self.p, dim=-1)


def query_rows(session: Session, call: AttentionCall, queries: Selection, owner: str) -> Tensor:
    """Row numbers in a call of a selection of queries.

    Raises:
        ProbeError: none of them is a row of the call.
    """
    rows = call.index(session.layout.select(queries))
    if not len(rows):
        raise ProbeError(f'{owner}: no token of queries="{queries}" is left in layer {call.layer}')
    return rows


def received(call: AttentionCall, rows: Tensor) -> Float[Tensor, "head key"]:
    """Attention weight of each key, mean over some rows; memory is that of a tile."""
    if len(rows) > MANY:
        from probe.capture.sweep import Sweep, sweep

        asked = {"": call.positions[rows.cpu().numpy()]}
        return sweep(call, Sweep(received=asked)).received[""] / len(rows)
    total = torch.zeros(call.heads, call.key.shape[1], device=call.key.device)
    for part in rows.split(ROWS):
        total += call.scores(part).softmax(-1).sum(1)
    return total / len(rows)
