"""Ablations of attention edges: which edges, in which layers, and proof that it mattered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from probe.ablate.base import Ablation
from probe.ablate.rope_ids import frame_of
from probe.errors import ProbeError
from probe.models.selection import Edges
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session


@dataclass(frozen=True)
class EdgeAblation(Ablation):
    """Base of ablations that change some attention edges in some layers.

    Attributes:
        edges: "video -> question", ("frame 3", "last"), or a list of them; source -> destination.
            "X -> answer" cuts into the readout; "text" and "readout" include generated tokens.
        layers: which layers.
    """

    always_shown: ClassVar[tuple[str, ...]] = ("edges",)

    edges: Edges = "video -> text"
    layers: Layers = "all"

    def change(self, session: Session, call: AttentionCall, rows: Tensor, columns: Tensor) -> None:
        """What is done to the edges from these keys (columns) to these queries (rows)."""
        raise NotImplementedError(f"{self.kind} has no change()")

    def changed(
        self,
        session: Session,
        call: AttentionCall,
        rows: Tensor,
        columns: Tensor,
        before: Tensor,
        after: Tensor,
    ) -> bool:
        """Whether the scores [head, row, key] of a few rows are on these columns not the model's
        own any more, but what they should be.
        """
        raise NotImplementedError(f"{self.kind} has no changed()")

    def start(self, session: Session) -> dict | None:
        """Neutral in a prompt without a clip, where the edges are those of one."""
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        edges = session.layout.edges(self.edges)
        if not edges and not session.force:
            return None
        return {"layers": layers, "edges": edges, "met": set(), "fired": set()}

    def edit(self, session: Session, state: dict, call: AttentionCall) -> None:
        """Change the edges whose two ends are in this call."""
        if call.layer not in state["layers"]:
            return
        for number, (source, destination) in enumerate(state["edges"]):
            rows, columns = call.index(destination), call.key_index(source)
            if not len(rows) or not len(columns):
                continue
            state["met"].add(number)
            if number in state["fired"]:
                self.change(session, call, rows, columns)
                continue
            few = witnesses(call, rows, columns)
            before = call.unedited.scores(few)
            self.change(session, call, rows, columns)
            if self.changed(session, call, few, columns, before, call.scores(few)):
                state["fired"].add(number)

    def affects(self, session: Session, state: dict) -> tuple[int, int]:
        """The first layer, and the first row that may see a source: where a mask shows whole
        frames, a row of the frame of the first one.
        """
        frame, first = frame_of(session.layout), [len(session.layout)]
        for source, destination in state["edges"]:
            start = int(source[0])
            if frame[start] >= 0:
                start = int(np.flatnonzero(frame == frame[start])[0])
            first += destination[destination >= start][:1].tolist()
        return state["layers"][0], min(first)

    def finish(self, session: Session, state: dict) -> None:
        """Every edge met a token in some layer, and its scores changed there."""
        for number in range(len(state["edges"])):
            if number not in state["met"]:
                raise ProbeError(f"{self}: edge {number} met no token; the ablation did not fire")
            if number not in state["fired"]:
                raise ProbeError(
                    f"{self}: edge {number} carried no attention that could be changed (it is "
                    "hidden already, or its weight is zero); the ablation did not fire"
                )


def witnesses(call: AttentionCall, rows: Tensor, columns: Tensor) -> Tensor:
    """At most three of the rows: the last, and the first that come after the first and after the
    last column, which are the nearest where a window hides what is far.
    """
    own = torch.as_tensor(call.positions, device=rows.device)[rows]
    keys = torch.as_tensor(call.key_positions, device=rows.device)[columns]
    near = torch.searchsorted(own, torch.stack([keys[0], keys[-1]])).clamp(max=len(rows) - 1)
    return rows[torch.cat([near, near.new_tensor([len(rows) - 1])])].unique()
