"""BlindHeads: some heads no longer see some tokens, after the softmax (visual head pruning)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from probe.ablate.base import Ablation
from probe.ablate.scale import chosen, resolve_heads
from probe.errors import ProbeError
from probe.models.selection import Selection
from probe.spec import resolve_layers

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session

TILE = 64  # rows that are computed anew at once
QUERIES = ("kept", "also")


@dataclass(frozen=True)
class BlindHeads(Ablation):
    """In some heads the attention weights on some keys are set to 0 after the softmax.

    Attributes:
        heads: pairs (layer, head), as `visual_head_pruning` finds them; [] is neutral.
        keys: which tokens these heads do not see.
        renorm: the remaining weights of a row sum to 1 again (as if the keys were cut before the
            softmax); without it their sum falls short by what was taken away, as published, and
            captures still show the weights of the softmax. A row that sees nothing else gets
            nothing from the head.
        queries: "kept", or "also": what these heads put out in the rows of `keys` is 0 too, as
            the released code has it.
    """

    place: ClassVar[str] = "attention mask"
    source: ClassVar[str] = "visual head pruning (YOPO, arXiv 2410.06169)"
    always_shown: ClassVar[tuple[str, ...]] = ("heads",)

    heads: Sequence = ()
    keys: Selection = "video"
    renorm: bool = False
    queries: str = "kept"

    def start(self, session: Session) -> dict | None:
        if self.queries not in QUERIES:
            raise ProbeError(
                f'{self.kind}: queries="{self.queries}"; there are {", ".join(QUERIES)}'
            )
        heads: dict[int, list[int]] = {}
        for pair in self.heads:
            if not isinstance(pair, Sequence) or len(pair) != 2:
                raise ProbeError(f"{self.kind}: heads {pair!r}; give pairs (layer, head)")
            layer = resolve_layers(pair[0], session.model.n_layers, self.kind)[0]
            head = resolve_heads(pair[1], session.model.n_heads, self.kind)[0]
            heads.setdefault(layer, []).append(head)
        keys = chosen(session, self.keys)
        if keys is None or (not heads and not session.force):
            return None
        return {"heads": heads, "keys": keys, "fired": set()}

    def listens(self, event: str) -> bool:
        unused = {"edit": not self.renorm, "head_outputs": self.renorm and self.queries == "kept"}
        return super().listens(event) and not unused.get(event, False)

    def edit(self, session: Session, state: dict, call: AttentionCall) -> None:
        """With `renorm`: the edges are cut before the softmax."""
        columns, heads = call.key_index(state["keys"]), self._heads(state, call)
        if not self.renorm or not len(columns) or not len(heads):
            return
        rows = self._seeing(call, state["keys"])
        for part in rows.flip(0).split(TILE):  # the last rows see most
            if bool((_weights(call, part, heads)[..., columns] > 0).any()):
                state["fired"].add(call.layer)
                break
        call.cut(rows, columns, heads)

    def head_outputs(
        self, session: Session, state: dict, call: AttentionCall, y: Tensor
    ) -> Tensor | None:
        columns, heads = call.key_index(state["keys"]), self._heads(state, call)
        if not len(columns) or not len(heads):
            return None
        changed, values = y.clone(), call.value.float()[heads // call.group_size]
        for rows in self._seeing(call, state["keys"]).split(TILE) if not self.renorm else ():
            weights = _weights(call, rows, heads)
            if not bool((weights[..., columns] > 0).any()):
                continue
            weights[..., columns] = 0
            changed[rows[:, None], heads] = (weights @ values).transpose(0, 1).to(y)
            state["fired"].add(call.layer)
        own = call.index(state["keys"]) if self.queries == "also" else columns[:0]
        changed[own[:, None], heads] = 0
        return changed

    def _heads(self, state: dict, call: AttentionCall) -> Tensor:
        numbers = sorted(set(state["heads"].get(call.layer, ())))
        return torch.as_tensor(numbers, dtype=torch.long, device=call.query.device)

    def _seeing(self, call: AttentionCall, keys: np.ndarray) -> Tensor:
        """Numbers of the rows that can see one of the keys; others are left as they are."""
        if call.mask is None and call.causal:
            return call.index(call.positions[call.positions >= keys[0]])
        return call.index(call.positions)

    def affects(self, session: Session, state: dict) -> tuple[int, int]:
        return min(state["heads"], default=0), int(state["keys"][0])

    def finish(self, session: Session, state: dict) -> None:
        missed = sorted(set(state["heads"]) - state["fired"])
        if missed and not session.force:
            raise ProbeError(
                f"{self}: no head of layer {missed[0]} saw any of the keys; "
                "the ablation did not fire"
            )


def _weights(call: AttentionCall, rows: Tensor, heads: Tensor) -> Tensor:
    """[head, row, key] of some heads after the softmax, 0 where a row sees nothing."""
    return call.scores(rows)[heads].softmax(-1).nan_to_num()
