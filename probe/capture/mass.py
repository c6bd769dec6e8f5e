"""AttentionMass: how much attention groups of queries pay to groups of keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

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
class AttentionMass(Capture):
    """Attention weight summed over each key group, mean over each query group.

    Exact, without an n x n matrix: rows of text are recomputed (softmax of their own scores);
    all rows take one tiled pass shared with the other captures.

    Attributes:
        queries: "text" (each text role, and `last`), "tokens" (every position, dim `position`),
            "roles", "frames", or a list of selections.
        keys: "frames" (each temporal group and each other role; sums to 1), "roles", or a list.
        layers: which layers.

    Result: attention_mass [layer, head, query_group or position, key_group], 0 to 1.
    """

    queries: Partition = "text"
    keys: Partition = "frames"
    layers: Layers = "all"

    def start(self, session: Session) -> dict:
        groups = query_groups(session, self.queries, self.kind)
        keys = session.layout.partition(self.keys)
        rows = sum(len(positions) for positions in groups.values())
        state = {
            "layers": resolve_layers(self.layers, session.model.n_layers, self.kind),
            "groups": groups,
            "keys": keys,
            "sweep": str(self) if rows > MANY else None,
        }
        if state["sweep"]:
            session.sweep.masses[str(self)] = keys
        return state

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        if call.layer not in state["layers"]:
            return
        rows = rows_of(session, call, state["groups"])
        index = call.index(rows)
        if state["sweep"]:
            mass = session.sweep.of(call).mass[state["sweep"]][:, index]
        else:
            onehot = torch.zeros(call.key.shape[1], len(state["keys"]), device=call.key.device)
            for number, positions in enumerate(state["keys"].values()):
                onehot[call.key_index(positions), number] = 1
            mass = call.weights(index) @ onehot
        store(session, state, call.layer, group_mean(session, mass, rows, state["groups"]))

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        dim, labels = query_axis(self.queries, state["groups"])
        coords = {
            "layer": list(state["layers"]),
            "head": np.arange(session.model.n_heads),
            dim: labels,
            "key_group": list(state["keys"]),
        }
        return {
            self.kind: array(
                session,
                stack(session, state, state["layers"]),
                ["layer", "head", dim, "key_group"],
                coords,
                "1",
                "attention weight summed over the key group, mean over the query group",
            )
        }

    def memory(self, session: Session) -> int:
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        groups = query_groups(session, self.queries, self.kind)
        keys = session.layout.partition(self.keys)
        return 4 * len(layers) * session.model.n_heads * len(groups) * len(keys)
