"""Statistics of every row's attention in one pass over tiles: O(tile x n) memory, exact.

Captures say before the run what they want; the first that asks about a call computes it for all.
For each tile of scores s with row maximum m: e = exp(s - m), z = sum e; then the mass on a key
group is its sum of e over z, the entropy log z - sum(e (s - m)) / z, and the attention received by
a key the sum of e / z over the queries. Scores come in units of log 2, so exp is exp2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.capture.key_groups import KeyGroups

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall


@dataclass
class Sweep:
    """What captures want of every row."""

    masses: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    received: dict[str, np.ndarray] = field(default_factory=dict)
    entropy: bool = False

    def of(self, call: AttentionCall) -> Statistics:
        """The statistics of a call, computed once; they live as long as the call."""
        if call.statistics is None:
            call.statistics = sweep(call, self)
        return call.statistics


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
    named = [positions for keys in want.masses.values() for positions in keys.values()]
    groups = KeyGroups([call.key_index(positions) for positions in named], columns)
    members = torch.zeros(len(want.received), rows, device=device)
    for number, positions in enumerate(want.received.values()):
        members[number, call.index(positions)] = 1
    mass = torch.empty(heads, rows, len(named), device=device)
    entropy = torch.full((heads, rows), float("nan"), device=device)
    received = torch.zeros(heads, len(members), columns, device=device)
    buffer = torch.empty(0, device=device)
    for some, start, stop, clean, scores in call.tiles():
        scores -= scores.amax(-1, keepdim=True)
        if len(buffer) < scores.numel():
            buffer = torch.empty(scores.numel(), device=device)
        e = torch.exp2(scores, out=buffer[: scores.numel()].view_as(scores))
        total = e.sum(-1)
        if named:
            groups.sum(e, out=mass[some, start:stop])
            mass[some, start:stop] /= total[..., None]
        if want.entropy:
            # Where e is 0 the score is -inf, and 0 x -inf would be NaN.
            scores[..., clean:].clamp_(min=-1e30)
            bits = total.log2() - torch.linalg.vecdot(e, scores) / total
            entropy[some, start:stop] = bits * math.log(2)
        if len(members):
            share = members[:, start:stop] / total[:, None]
            received[some, :, : scores.shape[-1]] += share @ e
    by_name = zip(want.received, received.unbind(1), strict=True)
    return Statistics(_split(mass, want), entropy, dict(by_name))


def _split(mass: Tensor, want: Sweep) -> dict[str, Tensor]:
    parts = mass.split([len(named) for named in want.masses.values()], dim=-1)
    return dict(zip(want.masses, parts, strict=True))
