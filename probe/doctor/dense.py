"""Attention statistics by their definitions, in float64, from dense weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probe.capture.base import Capture

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session
    from probe.models.layout import Layout

ENTROPY = "attention_entropy"


def statistics(weights: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Mass [head, text group, frame], entropy [head, text group] and received [head, text group,
    position] of one layer's weights [head, query, key].
    """
    queries = list(layout.partition("text").values())
    keys = list(layout.partition("frames").values())
    chosen = [weights[:, torch.as_tensor(q, device=weights.device)].double() for q in queries]
    onehot = torch.zeros(weights.shape[-1], len(keys), dtype=torch.double, device=weights.device)
    for number, positions in enumerate(keys):
        onehot[torch.as_tensor(positions, device=weights.device), number] = 1
    mass = torch.stack([(rows @ onehot).mean(1) for rows in chosen], 1)
    entropy = torch.stack([-rows.xlogy(rows).sum(-1).mean(1) for rows in chosen], 1)
    received = torch.stack([rows.mean(1) for rows in chosen], 1)
    found = {"attention_mass": mass, ENTROPY: entropy, "attention_received": received}
    return {name: value.cpu() for name, value in found.items()}


@dataclass(frozen=True)
class Dense(Capture):
    """The same from the query, key and value that the attention function got, and how far its
    output is from dense weights times values (`output`, relative to the largest).
    """

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        """Softmax of q . k in float64, for one head after another: one map is held at a time."""
        heads, error, largest = [], [], []
        for head in range(call.heads):
            weights = self._weights(call, head)
            heads.append(statistics(weights, session.layout))
            mixed = weights[0] @ call.value[head // call.group_size].double()
            error.append((mixed - call.output[:, head].double()).abs().max())
            largest.append(mixed.abs().max())
        found = {name: torch.cat([one[name] for one in heads]) for name in heads[0]}
        found["output"] = (torch.stack(error).max() / torch.stack(largest).max()).cpu()
        state.setdefault("layers", {})[call.layer] = found

    def finish(self, session: Session, state: dict) -> dict[str, Any]:
        """A variable for each statistic, [layer, ...]."""
        import xarray as xr

        layers = [state["layers"][layer] for layer in sorted(state["layers"])]
        found = {}
        for name in layers[0]:
            values = torch.stack([layer[name] for layer in layers]).numpy()
            dims = ["layer", *(f"{name}_{axis}" for axis in range(1, values.ndim))]
            coords = {dim: range(size) for dim, size in zip(dims, values.shape, strict=True)}
            found[f"dense_{name}"] = xr.DataArray(values, dims=dims, coords=coords)
        return found

    def _weights(self, call: AttentionCall, head: int) -> Tensor:
        query, key = call.query[head].double(), call.key[head // call.group_size].double()
        scores = query @ key.mT * call.scaling
        if call.softcap is not None:
            scores = call.softcap * torch.tanh(scores / call.softcap)
        if call.mask is None:
            hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
        elif call.mask.dtype == torch.bool:
            hidden = ~call.mask
        else:
            hidden = call.mask < torch.finfo(call.mask.dtype).min / 2
        return scores.masked_fill(hidden, float("-inf")).softmax(-1)[None]
