"""Maps from attention weights: what the answer reads of a token, and what a token receives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from probe.capture.base import Capture
from probe.capture.received import AttentionReceived
from probe.capture.rows import AttentionRows
from probe.diagnose.importance.base import ImportanceMap, Which, numbers, pick
from probe.models.selection import Selection

if TYPE_CHECKING:
    from probe.diagnose.case import Case


@dataclass(frozen=True)
class AttentionMap(ImportanceMap):
    """Attention weight of the last prompt position on each video token, 0 to 1.

    Attributes:
        layer: a layer, "each", or None for the mean over layers.
        head: a head, "each", or None for the mean over heads.

    It needs nothing but the untouched run.
    """

    always_shown: ClassVar[tuple[str, ...]] = ()

    layer: Which = None
    head: Which = None

    def reads(self, case: Case) -> Sequence[Capture]:
        return (AttentionRows(),)

    def each(self, case: Case) -> tuple[ImportanceMap, ...]:
        layers = numbers(self.layer, case.model.n_layers)
        heads = numbers(self.head, case.model.n_heads)
        return tuple(replace(self, layer=a, head=b) for a in layers for b in heads)

    def scores(self, case: Case) -> Float[np.ndarray, " token"]:
        weights = case.of(AttentionRows()).isel(query=0).values[..., case.video_tokens]
        return pick(self, weights, self.layer, self.head)


@dataclass(frozen=True)
class ReceivedMap(ImportanceMap):
    """Attention weight that each video token receives, mean over some queries and over heads.

    Under a causal mask early tokens are seen by more video rows than late ones, which has nothing
    to do with what they show. `seen=True` takes the mean over the rows that can see the token.

    Attributes:
        queries: a selection: "text", "question", "video", "all".
        layer: a layer, "each", or None for the mean over layers.
        seen: mean over the queries at or after the token alone.
    """

    always_shown: ClassVar[tuple[str, ...]] = ("queries",)

    queries: Selection = "text"
    layer: Which = None
    seen: bool = False

    @property
    def _capture(self) -> AttentionReceived:
        return AttentionReceived(queries=(self.queries,))  # type: ignore[arg-type]

    def reads(self, case: Case) -> Sequence[Capture]:
        return (self._capture,)

    def each(self, case: Case) -> tuple[ImportanceMap, ...]:
        return tuple(replace(self, layer=n) for n in numbers(self.layer, case.model.n_layers))

    def scores(self, case: Case) -> Float[np.ndarray, " token"]:
        tokens = case.video_tokens
        found = case.of(self._capture).isel(query_group=0).values[..., tokens]
        values = pick(self, found, self.layer)
        if not self.seen:
            return values
        rows = case.x.layout.select(self.queries)
        after = len(rows) - np.searchsorted(rows, tokens)
        return values * len(rows) / np.maximum(after, 1)
