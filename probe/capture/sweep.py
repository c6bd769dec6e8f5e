"""Statistics of every row's attention in one pass over tiles: O(tile x n) memory, exact.

Captures say before the run what they want; the first that asks about a call computes it for all.
For each tile of scores s with row maximum m: e = exp(s - m), z = sum e; then the mass on a key
group is (e @ one-hot) / z, the entropy log z - sum(e (s - m)) / z, and the attention received by a
key the sum of e / z over the queries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.engine.call import TILE

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall


@dataclass
class Sweep:
    """What is wanted of every row, and the statistics of the latest call."""

    masses: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    received: dict[str, np.ndarray] = field(default_factory=dict)
    entropy: bool = False
    _call: AttentionCall | None = None
    _latest: Statistics | None = None

    def of(self, call: AttentionCall) -> Statistics:
        """The statistics of a call, computed once."""
        if self._latest is None or self._call is not call:
            self._call, self._latest = call, sweep(call, self)
        return self._latest


@dataclass
class Statistics:
    """Per-row statistics of one call, in float32, on its device.

    Attributes:
        mass: by name, [head, query, group]: summed weight on each key group.
        entropy: [head, query] in nats.
        received: by name, [head, key]: weight received, summed over a set of queries.
    """

    mass: dict[str, Float[Tensor, "head query group"]]
    entropy: Float[Tensor, "head query"]
    received: dict[str, Float[Tensor, "head key"]]


def sweep(call: AttentionCall, want: Sweep) -> Statistics:
    """One pass over the tiles of a call."""
    heads, rows, columns = call.heads, call.query.shape[1], call.key.shape[1]
    device = call.query.device
    groups = [g for named in want.masses.values() for g in named.values()]
    onehot = torch.zeros(columns, len(groups) + 1, device=device)
    for number, positions in enumerate(groups):
        onehot[call.key_index(positions), number] = 1
    onehot[:, -1] = 1
    members = torch.zeros(len(want.received), rows, device=device)
    for number, positions in enumerate(want.received.values()):
        members[number, call.index(positions)] = 1
    mass = torch.empty(heads, rows, len(groups), device=device)
    entropy = torch.full((heads, rows), float("nan"), device=device)
    received = torch.zeros(len(members), heads, columns, device=device)
    buffer = torch.empty(TILE * columns, device=device)
    for head, start, stop, clean, scores in call.tiles():
        width = scores.shape[1]
        top = scores.amax(1, keepdim=True)
        scores -= top
        e = torch.exp(scores, out=buffer[: scores.numel()].view_as(scores))
        sums = e @ onehot[:width]
        total = sums[:, -1:]
        mass[head, start:stop] = sums[:, :-1] / total
        if want.entropy:
            # Where e is 0 the score is -inf, and 0 x -inf would be NaN.
            scores[:, clean:].clamp_(min=-1e30)
            entropy[head, start:stop] = (
                total[:, 0].log() - torch.linalg.vecdot(e, scores) / total[:, 0]
            )
        if len(members):
            share = members[:, start:stop] / total[:, 0]
            received[:, head, :width] += share @ e
    return Statistics(_split(mass, want), entropy, dict(zip(want.received, received, strict=True)))


def _split(mass: Tensor, want: Sweep) -> dict[str, Tensor]:
    parts = mass.split([len(named) for named in want.masses.values()], dim=-1)
    return dict(zip(want.masses, parts, strict=True))
