"""NoRope: some edges are scored as if their tokens had no position at all."""

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
class NoRope(Ablation):
    """Remove rotary positions from some edges, in some layers.

    For a query i in the destination and a key j in the source the score is that of the vectors
    before rotation; every other edge is scored as before, in one softmax over both.

    Attributes:
        edges: as in `Knockout`.
        layers: which layers.
    """

    place: ClassVar[str] = "rotary positions"
    source: ClassVar[str] = "general form of EDVT (Vista-LLaMA, arXiv 2312.08870)"

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
            call.remove_rotation(rows, columns)
            if len(rows) and len(columns):
                state["fired"].add(number)

    def finish(self, session: Session, state: dict) -> None:
        for number in range(len(state["edges"])):
            if number not in state["fired"]:
                raise ProbeError(f"{self}: edge {number} met no token; the ablation did not fire")


def edvt() -> NoRope:
    """EDVT, equal distance to every visual token (Vista-LLaMA, Ma et al. 2023): text reads the
    video without rotation, the video reads itself as before. Trained with it in the paper; on
    another checkpoint it is an ablation.
    """
    return NoRope("video -> text")
