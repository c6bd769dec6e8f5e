"""NoRope: some edges are scored as if their tokens had no position at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from probe.ablate.edges import EdgeAblation

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall


@dataclass(frozen=True)
class NoRope(EdgeAblation):
    """Remove rotary positions from some edges, in some layers.

    For a query i in the destination and a key j in the source the score is that of the vectors
    before rotation; every other edge is scored as before, in one softmax over both.

    Attributes:
        edges: as in `Knockout`.
        layers: which layers.
    """

    place: ClassVar[str] = "rotary positions"
    source: ClassVar[str] = "general form of EDVT (Vista-LLaMA, arXiv 2312.08870)"

    def change(self, call: AttentionCall, rows: Tensor, columns: Tensor) -> None:
        """Score the edges with vectors before rotation."""
        call.remove_rotation(rows, columns)


def edvt() -> NoRope:
    """EDVT, equal distance to every visual token (Vista-LLaMA, Ma et al. 2023): text reads the
    video without rotation, the video reads itself as before. Trained with it in the paper; on
    another checkpoint it is an ablation.
    """
    return NoRope("video -> text")
