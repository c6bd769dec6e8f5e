"""Ablations of attention edges: which edges, in which layers, and proof that they were met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from probe.ablate.base import Ablation
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

    def change(self, call: AttentionCall, rows: Tensor, columns: Tensor) -> None:
        """What is done to the edges from these keys (columns) to these queries (rows)."""
        raise NotImplementedError(f"{self.kind} has no change()")

    def start(self, session: Session) -> dict | None:
        """Neutral in a prompt without a clip, where the edges are those of one."""
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        edges = session.layout.edges(self.edges)
        if not edges and not session.force:
            return None
        return {"layers": layers, "edges": edges, "fired": set()}

    def edit(self, session: Session, state: dict, call: AttentionCall) -> None:
        """Change the edges whose two ends are in this call."""
        if call.layer not in state["layers"]:
            return
        for number, (source, destination) in enumerate(state["edges"]):
            rows, columns = call.index(destination), call.key_index(source)
            self.change(call, rows, columns)
            if len(rows) and len(columns):
                state["fired"].add(number)

    def finish(self, session: Session, state: dict) -> None:
        """Every edge met a token in some layer."""
        for number in range(len(state["edges"])):
            if number not in state["fired"]:
                raise ProbeError(f"{self}: edge {number} met no token; the ablation did not fire")
