"""TokenFlow: how much each visual token brings to the row that answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from probe.capture.base import Capture
from probe.capture.gather import array, stack, store
from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session


@dataclass(frozen=True)
class TokenFlow(Capture):
    """Attention weight of the last prompt row on a visual token times the norm of what it brings.

    What head h brings from token j is W_O^h v_j, in front of any norm that follows the attention;
    the flow is the sum over heads of a_h |W_O^h v_j|.

    Result: token_flow [layer, position], positions are those of the clips' tokens.
    """

    def start(self, session: Session) -> dict:
        if session.generating:
            raise ProbeError(f"{self.kind}: reads a prompt; use model.run")
        return {"tokens": session.layout.select("video")}

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        there = np.isin(state["tokens"], call.key_positions)
        columns = call.key_index(state["tokens"])
        weights = call.scores(call.index(np.array([session.layout.last]))).softmax(-1)[:, 0]
        out = session.model.output_matrix(call.layer).float().to(weights)
        out = out.view(len(out), call.heads, -1)
        gram = torch.einsum("whc,whd->hcd", out, out)  # |W v|^2 = v' W'W v, without W v itself
        full = torch.full((len(there),), float("nan"))
        flow = torch.zeros(len(columns), device=weights.device)
        for head in range(call.heads):
            value = call.value[head // call.group_size, columns].float()
            size = ((value @ gram[head]) * value).sum(-1).clamp(min=0).sqrt()
            flow += weights[head, columns] * size
        full[torch.as_tensor(there)] = flow.cpu()
        store(session, state, call.layer, full)

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        layers = list(range(session.model.n_layers))
        coords = {"layer": layers, "position": state["tokens"]}
        about = "attention of the last row on the token times the norm of what it brings"
        values = stack(session, state, layers)
        return {self.kind: array(session, values, ["layer", "position"], coords, "1", about)}
