"""Video-LLaVA: per frame the CLS token of CLIP and then its patches; images without CLS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from probe.models.family import Family
from probe.models.visual import Visual, VisualGrid


def grid(config: Any, inputs: dict[str, Any], visual: Visual) -> VisualGrid:
    """The tokens of one clip or image, frame by frame in raster order.

    A CLS token stands for its whole frame: a video token of the frame's group without a cell.
    Clips always keep it, images where the config selects the "full" features.
    """
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    edges = np.stack([np.arange(side), np.arange(1, side + 1)], 1)
    edges = edges * vision.patch_size / vision.image_size
    top, bottom, left, right = visual.seen
    video = visual.kind == "video"
    patches = VisualGrid.raster(
        visual.kind,
        [(frame,) for frame in range(visual.frames)] if video else [],
        top + (bottom - top) * edges,
        left + (right - left) * edges,
    )
    if not video and config.vision_feature_select_strategy == "default":
        return patches
    starts = np.arange(visual.frames) * side**2
    return replace(
        patches,
        role=np.insert(patches.role, starts, visual.kind),
        group=np.insert(patches.group, starts, patches.group[starts]),
        row=np.insert(patches.row, starts, -1),
        col=np.insert(patches.col, starts, -1),
    )


FAMILIES = (
    Family(
        model_type="video_llava",
        model_class="VideoLlavaForConditionalGeneration",
        title="Video-LLaVA",
        example="LanguageBind/Video-LLaVA-7B-hf",
        grid=grid,
        vision="model.video_tower",
    ),
)
