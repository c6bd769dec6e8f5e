"""SparseReconstruction: the residual stream becomes what a sparse autoencoder makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from probe.ablate.base import Ablation
from probe.capture.sae import autoencoder, short
from probe.errors import ProbeError
from probe.models.selection import NoClip, Selection
from probe.spec import resolve_layers

if TYPE_CHECKING:
    from probe.engine.session import Session


@dataclass(frozen=True)
class SparseReconstruction(Ablation):
    """Replace the residual stream that enters a layer by an autoencoder's reconstruction.

    Attributes:
        weights, layer, activation, center: as in `SparseFeatures`.
        at: which positions; "text", "generated" and "all" include generated tokens.
        off: numbers of features that are set to 0.
        error: add what the autoencoder does not reconstruct; then only `off` changes anything, and
            without `off` it is neutral.
    """

    place: ClassVar[str] = "residual stream"
    source: ClassVar[str] = "sparse feature circuits (Marks et al. 2024, arXiv 2403.19647)"

    weights: str | Sequence
    layer: int
    at: Selection = "all"
    off: Sequence[int] | np.ndarray = ()
    error: bool = False
    activation: str = "relu"
    center: bool = False

    def __str__(self) -> str:
        return short(self, super().__str__())

    def start(self, session: Session) -> dict | None:
        layer = resolve_layers(self.layer, session.model.n_layers, self.kind)[0]
        code = autoencoder(self, session)
        size = len(code.b_enc)
        wrong = [number for number in self.off if not 0 <= number < size]
        if wrong:
            raise ProbeError(f"{self.kind}: feature {wrong[0]}; there are 0 to {size - 1}")
        try:
            positions = session.layout.select(self.at)
        except NoClip:
            return None
        if self.error and not self.off and not session.force:
            return None
        return {"code": code, "layer": layer, "positions": positions, "fired": False}

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> Tensor | None:
        if layer != state["layer"]:
            return None
        rows = np.flatnonzero(np.isin(session.positions[layer], state["positions"]))
        if not len(rows):
            return None
        index = torch.as_tensor(rows, device=x.device)
        code, before = state["code"], x[index].float()
        features = code.encode(before)
        edited = features.clone()
        edited[:, list(self.off)] = 0
        if self.error:  # decode(edited) + (before - decode(features)), without its rounding
            after = before + (edited - features) @ code.W_dec
        else:
            after = code.decode(edited)
        changed = x.index_copy(0, index, after.to(x.dtype))
        state["fired"] |= not torch.equal(changed, x)
        return changed

    def finish(self, session: Session, state: dict) -> None:
        if not state["fired"] and not session.force:
            raise ProbeError(
                f"{self}: it changed no number of the residual stream (a feature that is off "
                "everywhere?); the ablation did not fire"
            )
