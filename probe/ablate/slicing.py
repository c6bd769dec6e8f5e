"""SliceMLP: some tokens use only the first hidden units of the MLPs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from probe.ablate.base import Ablation
from probe.ablate.scale import chosen
from probe.errors import ProbeError
from probe.models.selection import Selection
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    from probe.engine.session import Session


@dataclass(frozen=True)
class SliceMLP(Ablation):
    """Some tokens use the first m / ratio of the m hidden units of the MLPs.

    The others are set to 0 before the output projection, which is the same numbers as slicing
    the three matrices; it is not faster.

    Attributes:
        ratio: of all units to those that stay, at least 1; 1 is neutral. m / ratio is rounded down.
        at: which tokens; "text", "generated" and "all" include generated tokens; [] is neutral.
        layers: which layers; one with a mixture of experts has no order of units and is refused.
    """

    place: ClassVar[str] = "heads and MLPs"
    source: ClassVar[str] = "FFN slicing for visual tokens (YOPO, arXiv 2410.06169)"
    always_shown: ClassVar[tuple[str, ...]] = ("ratio",)

    ratio: float = 2.0
    at: Selection = "video"
    layers: Layers = "all"

    def start(self, session: Session) -> dict | None:
        if not math.isfinite(self.ratio) or self.ratio < 1:
            raise ProbeError(f"{self.kind}: ratio {self.ratio}; write a number from 1 (all units)")
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        for layer in layers:
            projection = session.model.mlp_output(layer)
            if projection is None:
                raise ProbeError(
                    f"{self.kind}: layer {layer} has no single MLP (a mixture of experts has one "
                    'an expert, with no common order of units); Ablate("mlp") takes its output'
                )
            units = projection.in_features
            if int(units / self.ratio) == 0:
                raise ProbeError(
                    f"{self.kind}: ratio {self.ratio} leaves none of {units} units; "
                    'Ablate("mlp") takes MLPs away'
                )
        positions = chosen(session, self.at)
        if positions is None or (self.ratio == 1 and not session.force):
            return None
        return {"layers": layers, "positions": positions, "fired": False}

    def hidden(self, session: Session, state: dict, layer: int, h: Tensor) -> Tensor | None:
        rows = np.flatnonzero(np.isin(session.positions[layer], state["positions"]))
        if layer not in state["layers"] or not len(rows):
            return None
        changed = h.clone()
        changed[torch.as_tensor(rows, device=h.device), int(h.shape[-1] / self.ratio) :] = 0
        state["fired"] |= not torch.equal(changed, h)
        return changed

    def affects(self, session: Session, state: dict) -> tuple[int, int]:
        return state["layers"][0], int(state["positions"][0])

    def finish(self, session: Session, state: dict) -> None:
        if not state["fired"] and not session.force:
            raise ProbeError(
                f"{self}: it changed no hidden unit of any MLP; the ablation did not fire"
            )
