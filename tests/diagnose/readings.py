"""What diagnoses read, as transformers itself gives it, and cases that are told what they read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr

from probe.diagnose import Case
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests import tiny

READ = [
    "AdjacentFrames",
    "AttentionShift",
    "AttentionTypes",
    "Blackout",
    "CodecBits",
    "Concentration",
    "EffectiveRank",
    "HeadRatio",
    "LayerCKA",
    "NormTail",
    "RankStability",
    "Spectrum",
    "StaticFraction",
]


@dataclass(eq=False)
class Told(Case):
    """A case whose captures are given instead of read."""

    says: Mapping[Any, xr.DataArray] = field(default_factory=dict)

    def of(self, capture: Any) -> xr.DataArray:
        return self.says[type(capture)]


def states(model: VideoModel, x: Example) -> np.ndarray:
    """[layer, position, channel] of the hidden states that transformers returns, in float64."""
    with torch.no_grad():
        out = model.hf(**x.inputs, output_hidden_states=True, use_cache=False)
    found = getattr(out, "language_model_outputs", out).hidden_states[: model.n_layers]
    return torch.stack([layer[0] for layer in found]).double().numpy()


def dense(eager: VideoModel, x: Example) -> np.ndarray:
    """[layer, head, query, key] of the maps that transformers returns, in float64."""
    return tiny.dense(eager, x).astype(np.float64)


def attention(model: VideoModel, weights: np.ndarray, groups: list[str]) -> xr.DataArray:
    """attention_received [layer, head, query_group, position] of given weights."""
    dims = ["layer", "head", "query_group", "position"]
    coords = {"query_group": groups, "position": np.arange(weights.shape[-1])}
    return xr.DataArray(weights, coords, dims)
