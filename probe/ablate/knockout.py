"""Knockout: attention edges are cut before the softmax, so their weight goes to the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from probe.ablate.base import Ablation
from probe.errors import ProbeError
from probe.models.selection import Edges
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session


@dataclass(frozen=True)
class Knockout(Ablation):
    """Let no information flow along some edges, in some layers (Geva et al. 2023).

    Attributes:
        edges: "video -> question", ("frame 3", "last"), or a list of them; source -> destination.
            "X -> answer" cuts into the readout; "text" and "readout" include generated tokens.
        layers: which layers.
    """

    place: ClassVar[str] = "attention mask"
    source: ClassVar[str] = "attention knockout (arXiv 2304.14767)"

    always_shown: ClassVar[tuple[str, ...]] = ("edges",)

    edges: Edges = "video -> text"
    layers: Layers = "all"

    def start(self, session: Session) -> dict | None:
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        edges = session.layout.edges(self.edges)
        if not edges and not session.force:
            return None  # edges of a clip, and a prompt without one
        return {"layers": layers, "edges": edges, "fired": set()}

    def edit(self, session: Session, state: dict, call: AttentionCall) -> None:
        if call.layer not in state["layers"]:
            return
        for number, (source, destination) in enumerate(state["edges"]):
            rows, columns = call.index(destination), call.key_index(source)
            call.cut(rows, columns)
            if len(rows) and len(columns):
                state["fired"].add(number)

    def finish(self, session: Session, state: dict) -> None:
        for number in range(len(state["edges"])):
            if number not in state["fired"]:
                raise ProbeError(f"{self}: edge {number} met no token; the ablation did not fire")
