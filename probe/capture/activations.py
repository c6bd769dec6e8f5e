"""Activations: the vectors themselves, at named positions and layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.gather import array, stack, store
from probe.errors import ProbeError
from probe.models.selection import Selection
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session

SITES = ("residual", "attention", "mlp", "head")


@dataclass(frozen=True)
class Activations(Capture):
    """Activations at a site.

    Attributes:
        site: "residual" (enters the layer), "attention" or "mlp" (what it adds), "head" (each
            head's mix of values before the output projection).
        positions: a selection; in `generate` each step's own token.
        layers: which layers.

    Result: activations [layer, position, channel], and [layer, position, head, head_channel] for
    "head"; NaN where a token does not exist.
    """

    site: str = "residual"
    positions: Selection = "readout"
    layers: Layers = "all"

    def start(self, session: Session) -> dict:
        if self.site not in SITES:
            raise ProbeError(f'{self.kind}: site "{self.site}"; there are {", ".join(SITES)}')
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        return {"layers": layers, "positions": session.layout.select(self.positions)}

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        self._take(session, state, "residual", layer, x)

    def output(self, session: Session, state: dict, layer: int, part: str, y: Tensor) -> None:
        self._take(session, state, part, layer, y)

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        self._take(session, state, "head", call.layer, call.output)

    def _take(self, session: Session, state: dict, site: str, layer: int, x: Tensor) -> None:
        if site != self.site or layer not in state["layers"]:
            return
        if session.generating:
            store(session, state, layer, x[-1])
            return
        there = session.positions[layer]
        inside = np.isin(state["positions"], there)
        full = torch.full((len(inside), *x.shape[1:]), float("nan"))
        rows = np.searchsorted(there, state["positions"][inside])
        full[torch.as_tensor(inside)] = x[torch.as_tensor(rows, device=x.device)].float().cpu()
        store(session, state, layer, full)

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        values = stack(session, state, state["layers"])
        coords = {"layer": list(state["layers"])}
        dims = ["layer"]
        if not session.generating:
            dims, coords["position"] = [*dims, "position"], state["positions"]
        if self.site == "head":
            dims, coords["head"] = [*dims, "head"], list(range(session.model.n_heads))
        channel = "head_channel" if self.site == "head" else "channel"
        dims, coords[channel] = [*dims, channel], list(range(values.shape[-1]))
        about = {
            "residual": "residual stream that enters the layer",
            "attention": "what attention adds to the residual stream",
            "mlp": "what the MLP adds to the residual stream",
            "head": "each head's weighted sum of values, before the output projection",
        }[self.site]
        return {self.kind: array(session, values, dims, coords, "1", about)}

    def memory(self, session: Session) -> int:
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        positions = len(session.layout.select(self.positions))
        return 4 * len(layers) * positions * session.model.width
