"""AttentionEntropy: how spread out attention is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probe.capture.base import Capture
from probe.capture.gather import (
    MANY,
    array,
    group_mean,
    query_axis,
    query_groups,
    rows_of,
    stack,
    store,
)
from probe.models.selection import Partition
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session


@dataclass(frozen=True)
class AttentionEntropy(Capture):
    """Shannon entropy of each query's attention over all keys, mean over each query group.

    Attributes:
        queries: as in `AttentionMass`.
        layers: which layers.

    Result: attention_entropy [layer, head, query_group or position] in nats; 0 means one key.
    """

    queries: Partition = "text"
    layers: Layers = "all"

    def start(self, session: Session) -> dict:
        groups = query_groups(session, self.queries, self.kind)
        many = sum(len(positions) for positions in groups.values()) > MANY
        session.sweep.entropy |= many
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        return {"layers": layers, "groups": groups, "many": many}

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        if call.layer not in state["layers"]:
            return
        rows = rows_of(session, call, state["groups"])
        index = call.index(rows)
        if state["many"]:
            entropy = session.sweep.of(call).entropy[:, index]
        else:
            weights = call.weights(index)
            entropy = -weights.xlogy(weights).sum(-1)
        store(session, state, call.layer, group_mean(session, entropy, rows, state["groups"]))

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        dim, labels = query_axis(self.queries, state["groups"])
        heads = np.arange(session.model.n_heads)
        coords = {"layer": list(state["layers"]), "head": heads, dim: labels}
        values = stack(session, state, state["layers"])
        about = "entropy of the attention weights, mean over the query group"
        return {self.kind: array(session, values, ["layer", "head", dim], coords, "nat", about)}

    def memory(self, session: Session) -> int:
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        groups = query_groups(session, self.queries, self.kind)
        return 4 * len(layers) * session.model.n_heads * len(groups)
