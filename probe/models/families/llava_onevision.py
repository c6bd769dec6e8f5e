"""LLaVA-OneVision: T x (rows x cols) tokens, pooled bilinearly, then one newline token."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from probe.models.family import Family
from probe.models.layout import Visual, VisualGrid


def grid(config: Any, inputs: dict[str, Any], visual: Visual) -> VisualGrid:
    """The tokens of one clip: frame by frame in raster order, one newline at the end.

    Bilinear pooling to half the side reads, for each token, the two patches next to its centre
    along each axis; these are the edges of its cell.
    """
    vision = config.vision_config
    patches = vision.image_size // vision.patch_size
    side = math.ceil(patches / 2)
    centre = (np.arange(side) + 0.5) * patches / side - 0.5
    first = np.clip(np.floor(centre), 0, patches - 1)
    # A weight of zero on the second patch (odd grids) still counts as an edge of the cell.
    final = np.minimum(first + 2, patches)
    edges = np.stack([first, final], 1) * vision.patch_size / vision.image_size
    cells = side * side
    index = np.arange(visual.frames * cells)
    newline = np.array([-1])
    return VisualGrid(
        role=np.array(["video"] * len(index) + ["newline"], dtype="<U16"),
        group=np.concatenate([index // cells, newline]),
        row=np.concatenate([index % cells // side, newline]),
        col=np.concatenate([index % side, newline]),
        frames=tuple((frame,) for frame in range(visual.frames)),
        row_edges=edges,
        col_edges=edges,
    )


FAMILIES = (
    Family(
        model_type="llava_onevision",
        model_class="LlavaOnevisionForConditionalGeneration",
        title="LLaVA-OneVision",
        example="llava-hf/llava-onevision-qwen2-7b-ov-hf",
        grid=grid,
    ),
)
