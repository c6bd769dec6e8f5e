"""TokenNorms: how large each token is in the residual stream, as key and as value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.gather import array, stack, store
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session

VECTORS = ("residual", "key", "value")


@dataclass(frozen=True)
class TokenNorms(Capture):
    """L2 norms of every token, by layer.

    "residual" is the stream that enters the layer; "key" (rotated) and "value" are the vectors
    that attention reads, all key-value heads together. In `generate` only the step's own token.

    Result: token_norms [vector, layer, position].
    """

    layers: Layers = "all"

    def start(self, session: Session) -> dict:
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        return {"layers": layers, "parts": {}}

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        if layer in state["layers"]:
            state["parts"][layer] = [x.float().norm(dim=-1)]

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        if call.layer not in state["layers"]:
            return
        new = slice(len(call.key_positions) - len(call.positions), None)
        for vectors in (call.key[:, new], call.value[:, new]):
            state["parts"][call.layer].append(vectors.float().square().sum((0, 2)).sqrt())
        norms = torch.stack(state["parts"].pop(call.layer)).cpu()
        if session.generating:
            store(session, state, call.layer, norms[:, -1])
            return
        full = torch.full((len(VECTORS), len(session.layout)), float("nan"))
        full[:, torch.as_tensor(call.positions)] = norms
        store(session, state, call.layer, full)

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        values = stack(session, state, state["layers"])
        dims, coords = (
            ["layer", "vector"],
            {"layer": list(state["layers"]), "vector": list(VECTORS)},
        )
        if not session.generating:
            dims = [*dims, "position"]
            coords["position"] = list(range(len(session.layout)))
        norms = array(session, values, dims, coords, "1", "L2 norm of the token's vector")
        return {self.kind: norms.transpose("vector", ...)}

    def memory(self, session: Session) -> int:
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        return 4 * len(VECTORS) * len(layers) * len(session.layout)
