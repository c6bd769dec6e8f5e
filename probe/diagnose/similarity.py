"""FrameSimilarity: how alike neighbouring frames are inside the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.gather import array, stack, store
from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session


@dataclass(frozen=True)
class FrameSimilarity(Capture):
    """Cosine between tokens of adjacent frames in the same cell, by layer.

    Reads the residual stream that enters each layer; a pair of frames is the mean over cells.

    Result: frame_similarity [layer, pair], -1 to 1; "pair" p is frames p and p + 1.
    """

    def start(self, session: Session) -> dict:
        layout = session.layout
        if session.generating or not layout.clips or len(layout.groups) < 2:
            raise ProbeError(f"{self.kind}: needs a run on a clip of at least two frames")
        return {"video": layout.select("video"), "frames": len(layout.groups)}

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        rows = np.flatnonzero(np.isin(session.positions[layer], state["video"]))
        if len(rows) < len(state["video"]):
            store(session, state, layer, torch.full((state["frames"] - 1,), float("nan")))
            return
        vectors = x[torch.as_tensor(rows, device=x.device)].float()
        cells = vectors.view(state["frames"], -1, vectors.shape[-1])
        cosine = torch.cosine_similarity(cells[1:], cells[:-1], dim=-1)
        store(session, state, layer, cosine.mean(1))

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        layers = range(session.model.n_layers)
        values = stack(session, state, layers)
        coords = {"layer": list(layers), "pair": np.arange(state["frames"] - 1)}
        about = "cosine of tokens of adjacent frames in the same cell, mean over cells"
        return {self.kind: array(session, values, ["layer", "pair"], coords, "1", about)}
