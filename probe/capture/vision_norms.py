"""VisionNorms: how large each patch is in the vision tower, and how heavy the tail is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.vision_gather import (
    by_frame,
    expected_tokens,
    hooks,
    patch_coords,
    put,
    residual_layers,
    stack_frames,
    vision_array,
)
from probe.capture.vision_tail import TAIL, norm_tail
from probe.errors import ProbeError
from probe.spec import Layers

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session

OUTPUT = "projector_output"


@dataclass(frozen=True)
class VisionNorms(Capture):
    """L2 norms of every patch by layer of the vision tower, and after the projector.

    Layer l is the residual stream that enters layer l; the number of layers stands for what
    leaves the last one. An outlier is a patch whose norm is more than `outlier` times the median
    of its frame in that layer: high-norm patches hold global information and draw attention
    (Darcet et al., 2024, who cut DINOv2 by hand between the two modes of the histogram), and
    hallucination follows them (DAMRO, Gong et al., 2024, who find them by CLS attention instead:
    `probe.capture.vision_attention.outlier_patches`).

    Attributes:
        outlier: multiple of the frame's median above which a patch is an outlier.
        layers: layers of the tower, the number of layers included.

    Result: vision_norms [vision_layer, frame, patch], vision_norms_outlier (1 or 0, same dims),
    vision_norms_tail [vision_layer, tail] over all frames (PLLaVA, Xu et al., 2024), and, where
    the family names a projector, vision_norms_projected [frame, projector_output] and
    vision_norms_projected_tail [tail].
    """

    outlier: float = 3.0
    layers: Layers = "all"

    def start(self, session: Session) -> dict:
        if self.outlier <= 1:
            raise ProbeError(f"{self.kind}: outlier={self.outlier}; it is a multiple above 1")
        return {"layers": residual_layers(session, self.layers, self.kind), "projected": []}

    def vision_residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        if layer in state["layers"]:
            tokens = np.arange(len(x))[None]
            put(session, state, layer, tokens, x.float().norm(dim=-1)[None])

    def vision_features(self, session: Session, state: dict, place: str, x: Tensor) -> None:
        if place == "after":
            state["projected"].append(x.float().norm(dim=-1).cpu().numpy())

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        vision, layers = hooks(session), list(state["layers"])
        norms = by_frame(state, session, layers, mean=False)
        dims = ["vision_layer", "frame", "patch"]
        coords = {"vision_layer": layers, "frame": vision.labels} | patch_coords(vision.forwards)
        about = "L2 norm of the patch in the residual stream that enters the layer"
        median = np.nanmedian(norms, axis=-1, keepdims=True)
        outlier = np.where(np.isnan(norms), np.nan, norms > self.outlier * median)
        rule = f"1 where the norm is more than {self.outlier:g} times the median of the frame"
        results = {
            self.kind: vision_array(session, norms, dims, coords, "1", about),
            f"{self.kind}_outlier": vision_array(session, outlier, dims, coords, "1", rule),
            f"{self.kind}_tail": vision_array(
                session,
                np.stack([norm_tail(layer) for layer in norms]),
                ["vision_layer", "tail"],
                {"vision_layer": layers, "tail": list(TAIL)},
                "1",
                "tail of the norms of all patches: " + "; ".join(TAIL.values()),
            ),
        }
        if state["projected"]:
            results |= self._projected(session, state)
        return results

    def _projected(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        vision = hooks(session)
        tokens = [where.whole for where in vision.features["after"]]
        norms = stack_frames(
            [where.paint(values) for where, values in zip(tokens, state["projected"], strict=True)]
        )
        coords = {"frame": vision.labels_of(tokens)} | patch_coords(tokens, OUTPUT)
        name = f"{self.kind}_projected"
        about = "L2 norm of the feature after the projector"
        tail = "tail of these norms: " + "; ".join(TAIL.values())
        return {
            name: vision_array(session, norms, ["frame", OUTPUT], coords, "1", about),
            f"{name}_tail": vision_array(
                session, norm_tail(norms), ["tail"], {"tail": list(TAIL)}, "1", tail
            ),
        }

    def memory(self, session: Session) -> int:
        layers = residual_layers(session, self.layers, self.kind)
        return 12 * len(layers) * expected_tokens(session)
