"""VisionEntropy: how spread out attention in the vision tower is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probe.capture.base import Capture
from probe.capture.vision_gather import (
    attention_layers,
    by_frame,
    expected_tokens,
    hooks,
    put,
    vision_array,
)
from probe.spec import Layers

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session
    from probe.engine.vision_call import VisionCall


@dataclass(frozen=True)
class VisionEntropy(Capture):
    """Shannon entropy of each token's attention in the vision tower, mean over a frame's tokens.

    Attributes:
        layers: layers of the tower.

    Result: vision_entropy [vision_layer, vision_head, frame] in nats; 0 means one key. CLS counts
    as a token of its frame. In a windowed layer the highest value there can be is the log of the
    window's number of patches, elsewhere that of the frame's.
    """

    layers: Layers = "all"

    def start(self, session: Session) -> dict:
        hooks(session).wanted.add("entropy")
        return {"layers": attention_layers(session, self.layers, self.kind)}

    def vision_attention(self, session: Session, state: dict, call: VisionCall) -> None:
        if call.layer in state["layers"]:
            entropy = call.statistics().entropy
            assert entropy is not None
            put(session, state, call.layer, call.tokens, entropy.transpose(0, 1))

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        values = by_frame(state, session, state["layers"], mean=True)
        coords = {
            "vision_layer": list(state["layers"]),
            "vision_head": np.arange(values.shape[1]),
            "frame": hooks(session).labels,
        }
        about = "entropy of the attention weights, mean over the tokens of the frame"
        dims = ["vision_layer", "vision_head", "frame"]
        return {self.kind: vision_array(session, values, dims, coords, "nat", about)}

    def memory(self, session: Session) -> int:
        layers = attention_layers(session, self.layers, self.kind)
        return 4 * len(layers) * hooks(session).tower.heads * expected_tokens(session)
