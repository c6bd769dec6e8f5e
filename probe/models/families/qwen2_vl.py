"""Qwen2-VL and Qwen2.5-VL: two frames merge into a temporal group, 2 x 2 patches into a token."""

from __future__ import annotations

from typing import Any

from probe.models.family import Family
from probe.models.visual import Visual, VisualGrid, cells


def grid(config: Any, inputs: dict[str, Any], visual: Visual) -> VisualGrid:
    """The tokens of one clip or image, from the grid of patches that the processor states.

    A group covers `temporal_patch_size` frames; the last frame is repeated to fill the last group.
    """
    vision = config.vision_config
    shapes = inputs["video_grid_thw" if visual.kind == "video" else "image_grid_thw"]
    time, height, width = (int(side) for side in shapes[visual.number])
    merge, together = vision.spatial_merge_size, vision.temporal_patch_size
    frames = [
        tuple(range(first, min(first + together, visual.frames)))
        for first in range(0, time * together, together)
    ]
    rows, cols = height // merge, width // merge
    return VisualGrid.raster(
        visual.kind, frames if visual.kind == "video" else (), cells(rows), cells(cols)
    )


FAMILIES = (
    Family(
        model_type="qwen2_vl",
        model_class="Qwen2VLForConditionalGeneration",
        title="Qwen2-VL",
        example="Qwen/Qwen2-VL-7B-Instruct",
        grid=grid,
        vision="model.visual",
        projector="model.visual.merger",
    ),
    Family(
        model_type="qwen2_5_vl",
        model_class="Qwen2_5_VLForConditionalGeneration",
        title="Qwen2.5-VL",
        example="Qwen/Qwen2.5-VL-7B-Instruct",
        grid=grid,
        vision="model.visual",
        projector="model.visual.merger",
    ),
)
