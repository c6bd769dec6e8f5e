"""ResidualStream: the whole residual stream and everything added to it, for other toolkits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probe.capture.base import Capture
from probe.errors import ProbeError
from probe.models.selection import Selection

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session

ABOUT = {
    "": "residual stream that enters the layer; the last one enters the final norm",
    "attention": "what attention adds to the residual stream",
    "mlp": "what the MLP adds to the residual stream",
    "deepstack": "vision features added to the residual stream after the layer",
    "head": "each head's weighted sum of values, before the output projection",
}


@dataclass(frozen=True)
class ResidualStream(Capture):
    """The residual stream at every layer, what is added to it, and every head's mix of values.

    Attributes:
        positions: a selection; at all positions it is what TransformerLens would cache.

    Results, NaN where a token does not exist:
        residual_stream [lens_layer, position, channel]; lens_layer 0 is the merged embedding.
        residual_stream_attention, residual_stream_mlp [layer, position, channel].
        residual_stream_deepstack, the same, in families that add vision features in early layers.
        residual_stream_head [layer, position, head, head_channel].
    """

    positions: Selection = "all"

    def start(self, session: Session) -> dict:
        if session.generating:
            raise ProbeError(
                f"{self.kind}: reads one forward pass; after generate, "
                'model.run(model.force(x, run.meta["generated"]), ...) reads all steps at once'
            )
        return {"positions": session.layout.select(self.positions), "values": {}}

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        self._take(session, state, "", layer, x)

    def final(self, session: Session, state: dict, x: Tensor) -> None:
        self._take(session, state, "", session.model.n_layers, x)

    def output(self, session: Session, state: dict, layer: int, part: str, y: Tensor) -> None:
        self._take(session, state, part, layer, y)

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        self._take(session, state, "head", call.layer, call.output)

    def _take(self, session: Session, state: dict, part: str, layer: int, x: Tensor) -> None:
        layers, wanted = session.model.n_layers, state["positions"]
        if part not in state["values"]:
            shape = (layers + (part == ""), len(wanted), *x.shape[1:])
            fill = 0.0 if part == "deepstack" else np.nan  # most layers add nothing there
            state["values"][part] = np.full(shape, fill, np.float32)
        there = session.positions[min(layer, layers - 1)]
        inside = np.isin(wanted, there)
        rows = torch.as_tensor(np.searchsorted(there, wanted[inside]), device=x.device)
        state["values"][part][layer, inside] = x[rows].float().cpu().numpy()

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        import xarray as xr

        found = {}
        for part, values in sorted(state["values"].items()):
            dims = ["layer" if part else "lens_layer", "position", "channel"]
            if part == "head":
                dims[2:] = ["head", "head_channel"]
            coords = {dim: np.arange(size) for dim, size in zip(dims, values.shape, strict=True)}
            coords["position"] = state["positions"]
            attrs = {
                "units": "1",
                "description": ABOUT[part],
                "dtype": str(session.model.hf.dtype),
            }
            name = f"{self.kind}_{part}" if part else self.kind
            found[name] = xr.DataArray(values, dims=dims, coords=coords, attrs=attrs)
        return found

    def memory(self, session: Session) -> int:
        model = session.model
        widths = (3 * model.n_layers + 1) * model.width
        widths += model.n_layers * model.n_heads * model.head_dim
        return 4 * widths * len(session.layout.select(self.positions))


def captures(positions: Selection = "all", patterns: bool = False) -> list[Capture]:
    """What `to_transformer_lens` needs of a run: `model.run(x, interop.captures())`.

    Args:
        positions: positions to export; all by default. `model.estimate` says how much it takes.
        patterns: also the dense attention maps of these positions, [layer, head, query, key].
    """
    from probe.capture import AttentionRows

    return [ResidualStream(positions), *([AttentionRows(positions)] if patterns else [])]
