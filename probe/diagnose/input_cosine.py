"""InputCosine: how much each place of the clip changes from frame to frame, for the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.gather import array
from probe.diagnose.cells import by_frame
from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session


@dataclass(frozen=True)
class InputCosine(Capture):
    """Cosine of each visual token with that of its place in the next frame, as they enter layer 0.

    Result: input_cosine [pair, place] of the first clip; "pair" p is frames p and p + 1.
    """

    def start(self, session: Session) -> dict:
        if session.generating:
            raise ProbeError(f"{self.kind}: reads a prompt; use model.run")
        return {"table": by_frame(session.layout, self.kind)}

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        if layer:
            return
        rows = np.searchsorted(session.positions[0], state["table"])
        frames = x[torch.as_tensor(rows, device=x.device)].double()
        state["cosine"] = torch.cosine_similarity(frames[1:], frames[:-1], dim=-1).cpu().numpy()

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        pairs, places = state["cosine"].shape
        coords = {"pair": np.arange(pairs), "place": np.arange(places)}
        about = "cosine of the token with that of its place in the next frame"
        return {self.kind: array(session, state["cosine"], list(coords), coords, "1", about)}
