"""AnswerRows: the attention rows that answer tokens are read at, mean over heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from probe.capture.base import Capture
from probe.capture.gather import array, scatter, stack, store
from probe.errors import ProbeError
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session


@dataclass(frozen=True)
class AnswerRows(Capture):
    """Attention of some queries over all positions, mean over heads; a row sums to 1.

    Only these rows are computed, never a full map.

    Attributes:
        positions: of the queries.
        layers: which layers.

    Result: answer_rows [layer, token, position].

    Raises:
        ProbeError: a layer that does not see all earlier keys (a sliding window): its row is
            truncated, and zeros in place of what it does not see would be a made-up number.
    """

    positions: Sequence[int] = ()
    layers: Layers = "all"

    def start(self, session: Session) -> dict:
        if session.generating or not self.positions:
            raise ProbeError(f"{self.kind}: name the positions of queries, in model.run")
        return {"layers": resolve_layers(self.layers, session.model.n_layers, self.kind)}

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        if call.layer not in state["layers"]:
            return
        rows = call.index(np.array(self.positions))
        keys = torch.as_tensor(call.key_positions, device=rows.device)
        own = torch.as_tensor(call.positions, device=rows.device)[rows]
        if bool((call.hidden(rows) & (keys[None] <= own[:, None])).any()):
            raise ProbeError(
                f"{self.kind}: layer {call.layer} does not see all earlier tokens (a sliding "
                "window); name other layers"
            )
        weights = call.weights(rows).mean(0).cpu().numpy()
        full = scatter(weights, call.key_positions, len(session.layout))
        store(session, state, call.layer, torch.from_numpy(full))

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        values = stack(session, state, state["layers"])
        coords = {
            "layer": list(state["layers"]),
            "token": np.arange(len(self.positions)),
            "position": np.arange(len(session.layout)),
        }
        about = "attention of the query of each token on each position, mean over heads"
        return {self.kind: array(session, values, list(coords), coords, "1", about)}

    def memory(self, session: Session) -> int:
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        return 4 * len(layers) * len(self.positions) * len(session.layout)
