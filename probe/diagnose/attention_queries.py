"""QueriesThatSee: how many rows of each query set see each position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.gather import array, scatter, stack, store

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session

ROWS = 512  # rows of the mask at once


@dataclass(frozen=True)
class QueriesThatSee(Capture):
    """Of each query set, the rows that see a position, and what they would give it if uniform.

    Attributes:
        queries: selections.

    Result: queries_that_see [layer, quantity, query_group, position]: "rows" is their number,
    "uniform" the sum over them of 1 / number of keys that the row sees.
    """

    queries: Sequence[str] = ("all",)

    def start(self, session: Session) -> dict:
        return {"groups": session.layout.partition(self.queries), "plain": None}

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        found = None
        # Where the model makes no mask, layers with the same rows have the same one.
        plain = call.mask is None and not len(call.edited)
        if plain and state["plain"] is not None:
            rows, keys, before = state["plain"]
            same = np.array_equal(rows, call.positions) and np.array_equal(keys, call.key_positions)
            found = before if same else None
        if found is None:
            sums = count(call, list(state["groups"].values())).cpu().numpy()
            found = torch.from_numpy(scatter(sums, call.key_positions, len(session.layout)))
        if plain:
            state["plain"] = (call.positions, call.key_positions, found)
        store(session, state, call.layer, found)

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        layers = list(range(session.model.n_layers))
        coords = {
            "layer": layers,
            "quantity": ["rows", "uniform"],
            "query_group": list(state["groups"]),
            "position": np.arange(len(session.layout)),
        }
        about = "rows that see the position, and what it would get from them if all were uniform"
        values = stack(session, state, layers)
        return {self.kind: array(session, values, list(coords), coords, "1", about)}


def count(call: AttentionCall, groups: Sequence[np.ndarray]) -> Float[Tensor, "two group key"]:
    """Rows of each group that see a key, and the sum over them of 1 / keys seen."""
    rows, columns = len(call.positions), call.key.shape[1]
    device = call.query.device
    member = torch.zeros(len(groups), rows, device=device)
    for number, positions in enumerate(groups):
        member[number, call.index(positions)] = 1
    sums = torch.zeros(2, len(groups), columns, device=device)
    for some in torch.arange(rows, device=device).split(ROWS):
        sees = (~call.unseen(some)).float()
        sums[0] += member[:, some] @ sees
        sums[1] += member[:, some] @ (sees / sees.sum(-1, keepdim=True).clamp(min=1))
    return sums
