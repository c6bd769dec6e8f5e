"""One call of an attention layer: what it computed, exact scores of any rows, and edits of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from probe.engine.edits import EdgeMask, Edits
from probe.engine.rotary import rotated

if TYPE_CHECKING:
    from probe.models.anatomy import Anatomy

TILE = 256  # rows of scores in a tile: 256 x 4k in float32 are 4 MB
LOG2E = math.log2(math.e)


@dataclass
class AttentionCall:
    """One forward of one attention layer on one sequence.

    Attributes:
        layer: 0-based number of the layer.
        module: the attention module.
        query: [head, query, channel], rotated, as the attention function got it.
        key, value: [kv_head, key, channel].
        mask: the mask transformers made ([query, key], bool or additive), or None for causal.
        scaling: factor on q . k.
        positions, key_positions: layout positions of the rows and columns.
        unrotate: (vectors [head, n, channel], positions) -> the vectors before rotation.
        edits: what ablations changed.
        statistics: of every row, once a capture has asked for them (`probe.capture.sweep`).
        output: [query, head, channel] after the attention function, before the output projection.
    """

    layer: int
    module: Any
    query: Float[Tensor, "head query channel"]
    key: Float[Tensor, "kv_head key channel"]
    value: Float[Tensor, "kv_head key channel"]
    mask: Tensor | None
    scaling: float
    positions: np.ndarray
    key_positions: np.ndarray
    causal: bool
    softcap: float | None
    unrotate: Callable[[Tensor, np.ndarray], Tensor]
    output: Tensor = field(default_factory=lambda: torch.empty(0))
    statistics: Any = None
    edits: Edits = field(default_factory=Edits)
    _weights: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    def detached(self) -> AttentionCall:
        """The same call outside the graph of gradients."""
        return replace(
            self,
            query=self.query.detach(),
            key=self.key.detach(),
            value=self.value.detach(),
            output=self.output.detach(),
        )

    @property
    def unedited(self) -> AttentionCall:
        """The same call without what ablations change of its edges."""
        return replace(self, edits=Edits(), _weights={}, statistics=None)

    @property
    def heads(self) -> int:
        """Number of query heads."""
        return self.query.shape[0]

    @property
    def group_size(self) -> int:
        """Query heads that share one key-value head."""
        return self.query.shape[0] // self.key.shape[0]

    def index(self, positions: np.ndarray) -> Tensor:
        """Row numbers, in this call, of those layout positions that are rows of it."""
        return self._tensor(np.flatnonzero(np.isin(self.positions, positions)))

    def key_index(self, positions: np.ndarray) -> Tensor:
        """Column numbers, in this call, of those layout positions that are keys of it."""
        return self._tensor(np.flatnonzero(np.isin(self.key_positions, positions)))

    def cut(self, rows: Tensor, columns: Tensor, heads: Tensor | None = None) -> None:
        """Let no information pass along these edges: their score becomes -inf, in all heads or in
        some by their numbers.
        """
        if len(rows) and len(columns) and (heads is None or len(heads)):
            self._edit("cuts", rows, columns, heads)

    def hide(self, rows: Tensor, mask: EdgeMask) -> None:
        """Cut the edges of a mask: [row, key] of bool, or a function from row numbers to it."""
        if len(rows):
            self._edit("hidden", rows, mask)

    def show(self, rows: Tensor, mask: EdgeMask) -> None:
        """Let rows see keys that the model's own mask hides; the mask as in `hide`. What is cut
        or hidden stays so.
        """
        if len(rows):
            self._edit("shown", rows, mask)

    def remove_rotation(self, rows: Tensor, columns: Tensor) -> None:
        """Score these edges with the query and key as they were before rotation."""
        if len(rows) and len(columns):
            self._edit("scored", rows, columns, *self._unrotated(rows, columns))

    def rotate_as(
        self, model: Anatomy, rows: Tensor, columns: Tensor, query_ids: Tensor, key_ids: Tensor
    ) -> None:
        """Score these edges as if their tokens were at other positions.

        Args:
            model: whose rotary module makes the tables.
            rows, columns: numbers of queries and keys.
            query_ids, key_ids: position ids of each, [1, n] or [3, 1, n]; fractions are allowed.
        """
        if len(rows) and len(columns):
            query, key = self._unrotated(rows, columns)
            query = rotated(model, self.layer, self.module, query, query_ids)
            key = rotated(model, self.layer, self.module, key, key_ids)
            self.rescore(rows, columns, query, key)

    def rescore(self, rows: Tensor, columns: Tensor, query: Tensor, key: Tensor) -> None:
        """Score these edges with other vectors.

        Args:
            rows, columns: numbers of queries and keys.
            query: [head, row, channel] of the queries.
            key: [kv_head, column, channel] of the keys.
        """
        if len(rows) and len(columns):
            self._edit("scored", rows, columns, query, key)

    @property
    def edited(self) -> Tensor:
        """Row numbers whose attention an edit concerns, sorted."""
        rows = self.edits.rows
        return self._tensor(np.zeros(0, np.int64)) if rows is None else rows

    def scores(self, rows: Tensor) -> Float[Tensor, "head row key"]:
        """Attention scores before the softmax, edits and mask applied, in float32."""
        scores = self._product(self.query[:, rows], self.key)
        scores = self.edits.score(self._product, rows, scores)
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        scores = scores.masked_fill(self.unseen(rows), float("-inf"))
        return self.edits.cut_heads(rows, scores)

    def unseen(self, rows: Tensor) -> Tensor:
        """[row, key]: True where a row does not see a key, edits applied; those that single heads
        do not see are not among them.
        """
        return self.edits.unseen(rows, self.hidden(rows))

    def hidden(self, rows: Tensor) -> Tensor:
        """[row, key]: True where the model's own mask hides a key from a row."""
        if self.mask is not None:
            mask = self.mask[rows]
            return ~mask if mask.dtype == torch.bool else mask < -1e4
        if not self.causal:
            return torch.zeros(len(rows), self.key.shape[1], dtype=torch.bool, device=rows.device)
        own = torch.as_tensor(self.positions, device=rows.device)[rows]
        return torch.as_tensor(self.key_positions, device=rows.device)[None] > own[:, None]

    def weights(self, rows: Tensor) -> Float[Tensor, "head row key"]:
        """Attention weights of some rows, edits applied, in float32; NaN where nothing is seen."""
        key = tuple(rows.tolist())
        if key not in self._weights:
            self._weights = {key: self.scores(rows).softmax(-1)}
        return self._weights[key]

    def tiles(self) -> Iterator[tuple[slice, int, int, int, Tensor]]:
        """All rows in tiles: (heads, start, stop, clean, scores [head, row, key]).

        Scores are in units of log 2, so that weights are `exp2` of them (faster than `exp`), in a
        buffer that the next tile overwrites. Columns after the last one that a tile can see are
        left out; columns before `clean` are seen by every row of the tile.
        """
        rows, columns = self.query.shape[1], self.key.shape[1]
        together = self.heads if self.query.is_cuda else self.group_size
        size = TILE if self.query.is_cuda else max(1, TILE // together)
        simple = self.mask is None and self.softcap is None and rows == columns and self.causal
        edited = self.edited.unique().tolist() if simple else range(0, rows, size)
        general = {row // size * size for row in edited}
        for start in sorted(general):
            every = torch.arange(start, min(start + size, rows), device=self.query.device)
            for part in every.split(max(1, size * together // self.heads)):
                first, last = int(part[0]), int(part[-1])
                yield slice(0, self.heads), first, last + 1, 0, self.scores(part) * LOG2E
        if not simple:
            return
        buffer = torch.empty(together * size * columns, device=self.query.device)
        triangle = torch.full((size, size), float("-inf"), device=self.query.device).triu(1)
        for head in range(0, self.heads, together):
            shared = slice(head // self.group_size, (head + together) // self.group_size)
            key = self.key[shared].float()
            heads = slice(head, head + together)
            for start in range(0, rows, size):
                if start in general:
                    continue
                stop = min(start + size, rows)
                query = self.query[heads, start:stop].float() * (self.scaling * LOG2E)
                query = query.reshape(len(key), -1, query.shape[-1])
                scores = buffer[: together * (stop - start) * stop].view(len(key), -1, stop)
                torch.bmm(query, key[:, :stop].mT, out=scores)
                scores = scores.view(together, stop - start, stop)
                scores[:, :, start:] += triangle[: stop - start, : stop - start]
                yield heads, start, stop, start, scores

    def redo(self, output: Tensor, rows: Tensor) -> Tensor:
        """The attention function's output with some rows computed anew, edits applied."""
        output = output.clone()
        masked = self.edits.only_masks and self.softcap is None
        key, value = self.key[None].float(), self.value[None].float()
        for part in rows.split(TILE if masked else TILE // 4):
            if masked:
                mixed = scaled_dot_product_attention(
                    self.query[None, :, part].float(),
                    key,
                    value,
                    attn_mask=~self.unseen(part)[None, None],
                    scale=self.scaling,
                    enable_gqa=self.group_size > 1,
                )[0].nan_to_num()
            else:
                weights = self.scores(part).softmax(-1).nan_to_num()
                grouped = weights.view(self.key.shape[0], -1, *weights.shape[1:])
                mixed = (grouped @ value[0, :, None]).flatten(0, 1)
            output[0, part] = mixed.transpose(0, 1).to(output.dtype)
        return output

    def _product(self, query: Tensor, key: Tensor) -> Tensor:
        grouped = query.float().view(key.shape[0], -1, *query.shape[1:])
        return (grouped @ key.float()[:, None].mT).flatten(0, 1) * self.scaling

    def _unrotated(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        query = self.unrotate(self.query[:, rows], self.positions[rows.cpu().numpy()])
        return query, self.unrotate(self.key[:, columns], self.key_positions[columns.cpu().numpy()])

    def _edit(self, kind: str, *what: Any) -> None:
        getattr(self.edits, kind).append(what)
        self._weights = {}

    def _tensor(self, index: np.ndarray) -> Tensor:
        return torch.as_tensor(index, device=self.query.device)
