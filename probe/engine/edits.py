"""What ablations change about the attention edges of one call: hidden, shown, scored anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

# [row, key] of bool for the rows it comes with; or a function from row numbers to it, so that no
# table of all rows is ever made.
EdgeMask = Tensor | Callable[[Tensor], Tensor]


@dataclass
class Edits:
    """Edits of one call, over its row and column numbers; they do not depend on their order, but
    that a later score of an edge takes the place of an earlier one.

    Attributes:
        cuts: (rows, columns, heads) without any information; all heads where None.
        hidden, shown: (rows, mask). What is hidden stays hidden, whatever is shown.
        scored: (rows, columns, query [head, row, channel], key [kv_head, column, channel]), edges
            scored with other vectors.
    """

    cuts: list[tuple[Tensor, Tensor, Tensor | None]] = field(default_factory=list)
    hidden: list[tuple[Tensor, EdgeMask]] = field(default_factory=list)
    shown: list[tuple[Tensor, EdgeMask]] = field(default_factory=list)
    scored: list[tuple[Tensor, Tensor, Tensor, Tensor]] = field(default_factory=list)

    @property
    def rows(self) -> Tensor | None:
        """Row numbers that an edit concerns, sorted; None for no edit."""
        parts = [edit[0] for edit in (*self.cuts, *self.hidden, *self.shown, *self.scored)]
        return torch.cat(parts).unique() if parts else None

    @property
    def only_masks(self) -> bool:
        """Whether all heads see the same and every edge has its own score."""
        return not self.scored and all(heads is None for _, _, heads in self.cuts)

    def score(self, product: Callable, rows: Tensor, scores: Tensor) -> Tensor:
        """Scores [head, row, key] with those of other vectors, by `product(query, key)`."""
        for edited, columns, query, key in self.scored:
            mine, theirs = _match(rows, edited)
            if len(mine):
                scores[:, mine[:, None], columns] = product(query[:, theirs], key)
        return scores

    def unseen(self, rows: Tensor, unseen: Tensor) -> Tensor:
        """[row, key]: True where no head of a row sees a key, from the model's own such table."""
        for edited, mask in self.shown:
            mine, shown = _rows_of(rows, edited, mask)
            unseen[mine] &= ~shown
        for edited, mask in self.hidden:
            mine, hidden = _rows_of(rows, edited, mask)
            unseen[mine] |= hidden
        for edited, columns, heads in self.cuts:
            if heads is None:
                mine, _ = _match(rows, edited)
                unseen[mine[:, None], columns] = True
        return unseen

    def cut_heads(self, rows: Tensor, scores: Tensor) -> Tensor:
        """Scores [head, row, key] with -inf where single heads do not see a key."""
        for edited, columns, heads in self.cuts:
            if heads is not None:
                mine, _ = _match(rows, edited)
                scores[heads[:, None, None], mine[:, None], columns] = float("-inf")
        return scores


def _rows_of(rows: Tensor, edited: Tensor, mask: EdgeMask) -> tuple[Tensor, Tensor]:
    """Numbers in `rows` of edited ones, and their part of the mask [number, key]."""
    mine, theirs = _match(rows, edited)
    return mine, (mask[theirs] if isinstance(mask, Tensor) else mask(edited[theirs]))


def _match(rows: Tensor, edited: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers, in `rows` and in `edited`, of the rows they share."""
    both: Any = rows[:, None] == edited[None, :]
    return both.nonzero(as_tuple=True)
