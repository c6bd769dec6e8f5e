"""AttentionRows: the dense attention of named queries, for those who want the map itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from probe.capture.base import Capture
from probe.capture.gather import array, scatter, stack, store
from probe.errors import ProbeError
from probe.models.selection import Selection
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session


@dataclass(frozen=True)
class AttentionRows(Capture):
    """Dense attention weights of each query that a selection names.

    Attributes:
        queries: a selection; "last" by default. In `generate` leave it: each step has one query.
        layers: which layers.

    Result: attention_rows [layer, head, query, position]; rows sum to 1, NaN where no key is.
    """

    queries: Selection = "last"
    layers: Layers = "all"

    def start(self, session: Session) -> dict:
        if session.generating and self.queries not in ("last", "readout"):
            raise ProbeError(
                f"{self.kind}: in generate each step has one query, the position that emits its "
                'token; leave queries at "last"'
            )
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        return {"layers": layers, "queries": session.layout.select(self.queries)}

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        if call.layer not in state["layers"]:
            return
        wanted = call.positions[-1:] if session.generating else state["queries"]
        weights = call.weights(call.index(wanted)).cpu().numpy()
        full = np.full((call.heads, len(wanted), len(session.layout)), np.nan, np.float32)
        there = np.isin(wanted, call.positions)
        full[:, there] = scatter(weights, call.key_positions, len(session.layout))
        store(session, state, call.layer, torch.from_numpy(full))

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        values = stack(session, state, state["layers"])
        dims = ["layer", "head", "query", "position"]
        coords = {
            "layer": list(state["layers"]),
            "head": np.arange(session.model.n_heads),
            "query": ["readout"] if session.generating else state["queries"],
            "position": np.arange(len(session.layout)),
        }
        about = "attention weight of each named query on each position"
        return {self.kind: array(session, values, dims, coords, "1", about)}

    def memory(self, session: Session) -> int:
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        rows = 1 if session.generating else len(session.layout.select(self.queries))
        return 4 * len(layers) * session.model.n_heads * rows * len(session.layout)
