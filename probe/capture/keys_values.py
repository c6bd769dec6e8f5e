"""KeysValues: what attention reads of each token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from probe.capture.base import Capture
from probe.capture.gather import array
from probe.errors import ProbeError
from probe.models.selection import Selection
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session


@dataclass(frozen=True)
class KeysValues(Capture):
    """Keys (rotated) and values of some tokens, for patching what a row reads of them.

    Attributes:
        positions, layers: of which tokens, in which layers.

    Results: activations_key and activations_value [layer, position, kv_head, head_channel], NaN
    where a token does not exist; `probe.interop.save_activations` saves both.
    """

    positions: Selection = "all"
    layers: Layers = "all"

    def start(self, session: Session) -> dict:
        if session.generating:
            raise ProbeError(
                f"{self.kind}: reads one forward pass; after generate, "
                'model.run(model.force(x, run.meta["generated"]), ...) reads all steps at once'
            )
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        positions = session.layout.select(self.positions)
        return {"layers": layers, "positions": positions, "key": {}, "value": {}}

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        if call.layer not in state["layers"]:
            return
        inside = np.isin(state["positions"], call.key_positions)
        columns = call.key_index(state["positions"])
        for site, vectors in (("key", call.key), ("value", call.value)):
            full = torch.full((len(inside), len(vectors), vectors.shape[-1]), float("nan"))
            full[torch.as_tensor(inside)] = vectors[:, columns].transpose(0, 1).float().cpu()
            state[site][call.layer] = full.numpy()

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        found = {}
        for site, about in (("key", "keys, rotated"), ("value", "values")):
            values = np.stack([state[site][layer] for layer in state["layers"]])
            coords = {
                "layer": list(state["layers"]),
                "position": state["positions"],
                "kv_head": np.arange(values.shape[2]),
                "head_channel": np.arange(values.shape[3]),
            }
            name = f"activations_{site}"
            made = array(session, values, list(coords), coords, "1", about)
            found[name] = made.assign_attrs(site=site)
        return found

    def memory(self, session: Session) -> int:
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        width = session.model.n_kv_heads * session.model.head_dim
        return 8 * len(layers) * len(session.layout.select(self.positions)) * width
