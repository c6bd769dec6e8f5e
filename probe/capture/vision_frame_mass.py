"""VisionFrameMass: how much each frame attends to each other frame inside the vision tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from probe.capture.base import Capture
from probe.capture.vision_gather import attention_layers, hooks, vision_array
from probe.spec import Layers

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session
    from probe.engine.vision_call import VisionCall


@dataclass(frozen=True)
class VisionFrameMass(Capture):
    """Attention mass from frame to frame in the vision tower, mean over a frame's tokens.

    It is read off the blocks that the tower's attention really works on. Towers that attend
    within a frame have 1 on the diagonal, and `mixes` in the attributes is "False": so do all
    that transformers ships for the families here (in the Qwen-VL towers a frame is a temporal
    group of two, mixed by the patch convolution; windows and full layers stay within it).

    Attributes:
        layers: layers of the tower.

    Result: vision_frame_mass [vision_layer, vision_head, query_frame, key_frame]; rows sum to 1.
    """

    layers: Layers = "all"

    def start(self, session: Session) -> dict:
        hooks(session).wanted.add("frames")
        layers = attention_layers(session, self.layers, self.kind)
        return {"layers": layers, "sums": {}, "mixes": False}

    def vision_attention(self, session: Session, state: dict, call: VisionCall) -> None:
        if call.pooling or call.layer not in state["layers"]:
            return
        vision = hooks(session)
        key = (len(vision.forwards) - 1, call.layer)
        frames = vision.tokens.frames
        sums = state["sums"].setdefault(key, torch.zeros(call.heads, frames, frames))
        own = torch.as_tensor(call.frame.reshape(-1))
        found = call.statistics().frames
        if found is None:
            count = torch.bincount(own, minlength=frames).float()
            sums += torch.diag(count)
            return
        state["mixes"] = True
        mass = found.transpose(0, 1).flatten(1, 2).cpu()
        sums[:, :, : mass.shape[-1]].index_add_(1, own, mass)

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        vision, layers = hooks(session), state["layers"]
        heads = next(iter(state["sums"].values())).shape[0]
        total = len(vision.labels)
        values = np.zeros((len(layers), heads, total, total), np.float32)
        first = 0
        for number, tokens in enumerate(vision.forwards):
            inside = slice(first, first + tokens.frames)
            sizes = np.bincount(tokens.frame)[:, None]
            for place, layer in enumerate(layers):
                values[place, :, inside, inside] = state["sums"][number, layer].numpy() / sizes
            first += tokens.frames
        coords = {
            "vision_layer": list(layers),
            "vision_head": np.arange(heads),
            "query_frame": vision.labels,
            "key_frame": vision.labels,
        }
        about = "attention mass of the query frame's tokens on the key frame's, mean over queries"
        if not state["mixes"]:
            about += "; this tower attends within one frame at a time"
        array = vision_array(
            session, values, list(coords), coords, "1", about, mixes=str(state["mixes"])
        )
        return {self.kind: array}

    def memory(self, session: Session) -> int:
        layers = attention_layers(session, self.layers, self.kind)
        frames = max(1, len(session.layout.frames))
        return 8 * len(layers) * hooks(session).tower.heads * frames * frames
