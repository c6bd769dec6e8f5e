"""InternVL: every frame an image of its own, its patches shuffled together in small squares."""

from __future__ import annotations

from typing import Any

import numpy as np

from probe.models.family import Family
from probe.models.visual import Visual, VisualGrid


def grid(config: Any, inputs: dict[str, Any], visual: Visual) -> VisualGrid:
    """The tokens of one clip, frame by frame in raster order, or of one image.

    Large images are cut into tiles with a small picture of all of it at the end; no grid holds
    them all, so that their tokens have no cell.
    """
    vision = config.vision_config
    row_edges, col_edges = (
        np.stack([np.arange(side), np.arange(1, side + 1)], 1) / side
        for side in (
            int(size // patch * config.downsample_ratio)
            for size, patch in zip(vision.image_size, vision.patch_size, strict=True)
        )
    )
    if visual.kind == "video":
        frames = [(frame,) for frame in range(visual.frames)]
        return VisualGrid.raster("video", frames, row_edges, col_edges)
    if visual.tokens == len(row_edges) * len(col_edges):
        return VisualGrid.raster("image", [], row_edges, col_edges)
    none, nowhere = np.full(visual.tokens, -1), np.zeros((0, 2))
    role = np.full(visual.tokens, "image", dtype="<U16")
    return VisualGrid(role, none, none, none, (), nowhere, nowhere)


FAMILIES = (
    Family(
        model_type="internvl",
        model_class="InternVLForConditionalGeneration",
        title="InternVL",
        example="OpenGVLab/InternVL3-1B-hf",
        grid=grid,
        video_token="image_token_id",
    ),
)
