"""AttentionByType: attention from text to text and to vision, head mean, with entropies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.gather import array, stack, store
from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session

QUANTITIES = ("mass", "entropy")
LEFT_OUT = ("nothing", "first", "sinks")
TARGETS = ("instruction", "response")
SOURCES = ("instruction", "vision")
ROWS = 64  # rows of weights at once


@dataclass(frozen=True)
class AttentionByType(Capture):
    """Attention of text rows, mean over heads, summed by the type of what it goes to.

    For targets t and sources s the mass is the sum of a[i, j] over i in t and j in s, divided by
    the number of targets with any mass on s. The entropy is that of a[i, :] made to sum to 1
    inside s, mean over the same targets.

    Targets: "response" is the row that emits the answer's first token, "instruction" the other
    text. Sources: "vision" is every visual token, "instruction" all text.

    Attributes:
        first: how many positions at the start "first" leaves out of the sources.
        sink: "sinks" leaves out positions whose residual stream enters the layer with a norm of
            more than this many times the median.

    Result: attention_by_type [layer, left_out, quantity, target, source], entropies in nats, with
    a coordinate `sinks` [layer]: how many positions are sinks.
    """

    first: int = 4
    sink: float = 10.0

    def start(self, session: Session) -> dict:
        if session.generating:
            raise ProbeError(f"{self.kind}: reads a prompt; use model.run")
        if self.first < 0 or self.sink <= 1:
            raise ProbeError(f"{self.kind}: first={self.first} from 0 on, sink={self.sink} above 1")
        layout = session.layout
        text = layout.select("text")
        response = np.isin(text, layout.readout)
        return {
            "targets": dict(zip(TARGETS, (text[~response], text[response]), strict=True)),
            "sources": (text, np.setdiff1d(np.arange(len(layout)), text)),
            "sinks": {},
        }

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        norms = x.float().norm(dim=-1)
        big = (norms > self.sink * norms.median()).cpu().numpy()
        state["sinks"][layer] = session.positions[layer][big]

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        away = (np.zeros(0, int), np.arange(self.first), state["sinks"][call.layer])
        columns = [
            [call.key_index(np.setdiff1d(source, out)) for source in state["sources"]]
            for out in away
        ]
        found = np.full((len(LEFT_OUT), len(QUANTITIES), len(TARGETS), len(SOURCES)), np.nan)
        for number, rows in enumerate(state["targets"].values()):
            parts = [
                by_type(call.scores(some).softmax(-1).mean(0), columns)
                for some in call.index(rows).split(ROWS)
                if len(some)
            ]
            if parts:
                found[:, :, number] = average(torch.cat(parts, 2)).cpu().numpy()
        store(session, state, call.layer, torch.from_numpy(found))

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        layers = np.arange(session.model.n_layers)
        coords = {
            "layer": layers,
            "left_out": list(LEFT_OUT),
            "quantity": list(QUANTITIES),
            "target": list(TARGETS),
            "source": list(SOURCES),
        }
        about = "attention mass by type of target and source, and entropy inside the source"
        values = stack(session, state, layers.tolist())
        made = array(session, values, list(coords), coords, "1, nat", about)
        sinks = [len(state["sinks"][layer]) for layer in layers]
        return {self.kind: made.assign_coords(sinks=("layer", sinks))}


def by_type(weights: Tensor, columns: list[list[Tensor]]) -> Tensor:
    """[left_out, quantity, row, source] of rows of attention [row, key]; entropy NaN without mass.

    Args:
        weights: mean over heads, rows sum to 1.
        columns: by what is left out, the keys of each source.
    """
    found = []
    for several in columns:
        some = [weights[:, keys].double() for keys in several]
        mass = torch.stack([each.sum(-1) for each in some], -1)
        parts = [each / each.sum(-1, keepdim=True) for each in some]
        entropy = torch.stack([-part.xlogy(part).sum(-1) for part in parts], -1)
        found.append(torch.stack([mass, torch.where(mass > 0, entropy, torch.nan)]))
    return torch.stack(found)


def average(rows: Tensor) -> Tensor:
    """Over the targets that have any mass on a source; NaN where none has."""
    there = rows[:, :1] > 0
    return torch.where(there, rows, 0).sum(2) / there.sum(2)
