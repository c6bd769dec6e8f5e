"""NoRope: some edges are scored as if their tokens had no position, or were nearer together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from probe.ablate.base import Ablation
from probe.ablate.edges import EdgeAblation
from probe.ablate.rope_ids import axis_number
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session

CHANGE = 1e-5  # of the largest score: what float32 cannot be blamed for


@dataclass(frozen=True)
class NoRope(EdgeAblation):
    """Remove rotary positions from some edges, in some layers.

    For a query i in the destination and a key j in the source the score is that of the vectors
    before rotation; every other edge is scored as before, in one softmax over both.

    Attributes:
        edges: as in `Knockout`.
        layers: which layers.
        blend: both tokens of an edge are rotated to this part of their positions: 0 for no
            rotation, 1 for the model's own.
        axis: "time", "row" or "col": of rotary positions with three axes only this one.
    """

    place: ClassVar[str] = "rotary positions"
    source: ClassVar[str] = "general form of EDVT (Vista-LLaMA, arXiv 2312.08870)"

    blend: float = 0.0
    axis: str | None = None

    def start(self, session: Session) -> dict | None:
        """Neutral with a blend of 1."""
        if not 0 <= self.blend <= 1:
            raise ProbeError(f"{self.kind}: blend={self.blend}; it is between 0 (none) and 1")
        number = axis_number(session.model, self.axis, self.kind)
        state = super().start(session)
        if state is None or (self.blend == 1 and not session.force):
            return None
        return state | {"axis": number}

    def contradicts(self, other: Ablation) -> str | None:
        """Positions between none and all are those of the model's own frequencies."""
        from probe.ablate.rope import Rope

        partly = self.blend > 0 or self.axis is not None
        if partly and isinstance(other, Rope) and other.by_tables:
            return "the one scales positions that the other changes in single layers or by ntk"
        return None

    def change(self, session: Session, call: AttentionCall, rows: Tensor, columns: Tensor) -> None:
        """Score the edges with vectors before rotation, or rotated less."""
        if self.blend == 0 and self.axis is None:
            call.remove_rotation(rows, columns)
            return
        query = self._ids(session, call, call.positions, rows)
        key = self._ids(session, call, call.key_positions, columns)
        number = axis_number(session.model, self.axis, self.kind)
        for ids in (query, key):
            ids[slice(None) if number is None else number] *= self.blend
        call.rotate_as(session.model, rows, columns, query, key)

    def changed(
        self,
        session: Session,
        call: AttentionCall,
        rows: Tensor,
        columns: Tensor,
        before: Tensor,
        after: Tensor,
    ) -> bool:
        """Some score is another one, or all these tokens are at one position and none can be."""
        seen = before[..., columns].isfinite() & after[..., columns].isfinite()
        if not bool(seen.any()):
            return False
        moved = (after[..., columns] - before[..., columns]).abs()[seen]
        size = before[..., columns].abs()[seen].amax()
        if bool(moved.amax() > CHANGE * size):
            return True
        query = self._ids(session, call, call.positions, rows)
        key = self._ids(session, call, call.key_positions, columns)
        number = axis_number(session.model, self.axis, self.kind)
        query, key = (ids if number is None else ids[number] for ids in (query, key))
        return self.blend == 1 or bool((query[..., :, None] == key[..., None, :]).all())

    def _ids(self, session: Session, call: AttentionCall, positions, numbers: Tensor) -> Tensor:
        """Position ids [axis.., 1, n] in float, as they are in this layer."""
        ids = session.flow.ids(call.layer)
        index = torch.as_tensor(positions[numbers.cpu().numpy()], device=ids.device)
        return ids[..., index].float()
