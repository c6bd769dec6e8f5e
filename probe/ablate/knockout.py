"""Knockout: attention edges are cut before the softmax, so their weight goes to the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from probe.ablate.edges import EdgeAblation

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall


@dataclass(frozen=True)
class Knockout(EdgeAblation):
    """Let no information flow along some edges, in some layers (Geva et al. 2023).

    Attributes:
        edges: "video -> question", ("frame 3", "last"), or a list of them; source -> destination.
            "X -> answer" cuts into the readout; "text" and "readout" include generated tokens.
        layers: which layers.
    """

    place: ClassVar[str] = "attention mask"
    source: ClassVar[str] = "attention knockout (arXiv 2304.14767)"

    def change(self, call: AttentionCall, rows: Tensor, columns: Tensor) -> None:
        """Set the scores of the edges to -inf."""
        call.cut(rows, columns)
