"""Perception LM: T x (rows x cols) tokens, patches pooled by averages; images in tiles."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from probe.errors import ProbeError
from probe.models.family import Family
from probe.models.visual import Visual, VisualGrid


def grid(config: Any, inputs: dict[str, Any], visual: Visual) -> VisualGrid:
    """The tokens of one clip, frame by frame in raster order, or of one image.

    Images come as a small picture of all of it and then its tiles; no grid holds them all, so
    that their tokens have no cell. The CLS token never gets to the decoder.
    """
    video = visual.kind == "video"
    pixels = inputs["pixel_values_videos" if video else "pixel_values"][visual.number]
    patches = pixels.shape[-1] // _patch(config.vision_config)
    side = patches // config.projector_pooling_ratio
    cell = np.arange(side)
    # Windows of adaptive pooling: they overlap where they do not divide the patches.
    edges = np.stack([cell * patches // side, -((cell + 1) * -patches // side)], 1)
    edges = edges * _patch(config.vision_config) / pixels.shape[-1]
    if video:
        frames = [(frame,) for frame in range(visual.frames)]
        return VisualGrid.raster("video", frames, edges, edges)
    if len(pixels) == 1:
        return VisualGrid.raster("image", [], edges, edges)
    role = np.full(len(pixels) * side**2, "image", dtype="<U16")
    none, nowhere = np.full(len(role), -1), np.zeros((0, 2))
    return VisualGrid(role, none, none, none, (), nowhere, nowhere)


def _patch(vision: Any) -> int:
    """Side of a patch in pixels; timm has it in the name of the tower."""
    named = re.search(r"patch(\d+)", vision.architecture)
    size = (vision.model_args or {}).get("patch_size", named and named[1])
    if size is None:
        raise ProbeError(
            f"Perception LM: the vision tower '{vision.architecture}' does not say how large its "
            "patches are; set vision_config.model_args['patch_size']"
        )
    return int(size)


FAMILIES = (
    Family(
        model_type="perception_lm",
        model_class="PerceptionLMForConditionalGeneration",
        title="Perception LM",
        example="facebook/Perception-LM-1B",
        grid=grid,
    ),
)
