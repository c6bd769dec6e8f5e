"""Perception LM: T x (rows x cols) tokens, patches pooled by averages; images in tiles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from probe.models.family import Family
from probe.models.layout import Visual, VisualGrid


def grid(config: Any, inputs: dict[str, Any], visual: Visual) -> VisualGrid:
    """The tokens of one clip, frame by frame in raster order, or of one image.

    Images come as a small picture of all of it and then its tiles; no grid holds them all, so
    that their tokens have no cell. The CLS token never gets to the decoder.
    """
    video = visual.kind == "video"
    pixels = inputs["pixel_values_videos" if video else "pixel_values"][visual.number]
    side = math.isqrt(visual.tokens // len(pixels))
    edges = np.stack([np.arange(side), np.arange(1, side + 1)], 1) / side
    if video:
        frames = [(frame,) for frame in range(visual.frames)]
        return VisualGrid.raster("video", frames, edges, edges)
    if len(pixels) == 1:
        return VisualGrid.raster("image", [], edges, edges)
    none, nowhere = np.full(visual.tokens, -1), np.zeros((0, 2))
    role = np.full(visual.tokens, "image", dtype="<U16")
    return VisualGrid(role, none, none, none, (), nowhere, nowhere)


FAMILIES = (
    Family(
        model_type="perception_lm",
        model_class="PerceptionLMForConditionalGeneration",
        title="Perception LM",
        example="facebook/Perception-LM-1B",
        grid=grid,
    ),
)
