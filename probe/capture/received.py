"""AttentionReceived: how much attention each position gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from probe.capture.base import Capture
from probe.capture.gather import MANY, array, group_mean, query_groups, rows_of, scatter, stack
from probe.capture.gather import store as keep
from probe.models.selection import Partition
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session


@dataclass(frozen=True)
class AttentionReceived(Capture):
    """Attention weight each position receives, mean over each query group.

    Attributes:
        queries: "text" by default; "roles" for every role (all rows, one tiled pass), "frames",
            or a list of selections such as ["all"].
        layers: which layers.

    Result: attention_received [layer, head, query_group, position], 0 to 1.
    """

    queries: Partition = "text"
    layers: Layers = "all"

    def start(self, session: Session) -> dict:
        groups = query_groups(session, self.queries, self.kind)
        many = sum(len(positions) for positions in groups.values()) > MANY
        if many:
            for label, positions in groups.items():
                session.sweep.received[f"{self} {label}"] = positions
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        return {"layers": layers, "groups": groups, "many": many}

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        if call.layer not in state["layers"]:
            return
        groups = state["groups"]
        if state["many"]:
            sums = session.sweep.of(call).received
            counts = [len(call.index(positions)) for positions in groups.values()]
            sizes = torch.tensor(counts, device=call.key.device)[:, None, None]
            received = torch.stack([sums[f"{self} {label}"] for label in groups]) / sizes
            received = received.transpose(0, 1)
        else:
            rows = rows_of(session, call, groups)
            received = group_mean(session, call.weights(call.index(rows)), rows, groups)
        values = scatter(received.cpu().numpy(), call.key_positions, len(session.layout))
        keep(session, state, call.layer, torch.from_numpy(values))

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        dims = ["layer", "head", "query_group", "position"]
        coords = {
            "layer": list(state["layers"]),
            "head": np.arange(session.model.n_heads),
            "query_group": list(state["groups"]),
            "position": np.arange(len(session.layout)),
        }
        values = stack(session, state, state["layers"])
        about = "attention weight received by the position, mean over the query group"
        return {self.kind: array(session, values, dims, coords, "1", about)}

    def memory(self, session: Session) -> int:
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        groups = query_groups(session, self.queries, self.kind)
        heads = session.model.n_heads
        return 4 * len(layers) * heads * len(groups) * len(session.layout)
