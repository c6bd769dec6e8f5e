"""LLaVA-NeXT-Video: T x (rows x cols) tokens, patches of CLIP pooled; images in tiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from probe.models.family import Family
from probe.models.visual import Visual, VisualGrid


def grid(config: Any, inputs: dict[str, Any], visual: Visual) -> VisualGrid:
    """The tokens of one clip, frame by frame in raster order, or of one image.

    The CLS token never gets here: pooling needs a square of patches. An image is one picture of
    all of it and then its tiles with a newline after each row; no grid holds them all.
    """
    vision = config.vision_config
    patches = vision.image_size // vision.patch_size
    if visual.kind == "image":
        return _image(config, patches, inputs["image_sizes"][visual.number].tolist())
    side = patches // config.spatial_pool_stride
    token = config.spatial_pool_stride * vision.patch_size
    edges = np.stack([np.arange(side), np.arange(1, side + 1)], 1) * token / vision.image_size
    top, bottom, left, right = visual.seen
    return VisualGrid.raster(
        "video",
        [(frame,) for frame in range(visual.frames)],
        top + (bottom - top) * edges,
        left + (right - left) * edges,
    )


def _image(config: Any, patches: int, size: list[int]) -> VisualGrid:
    import torch
    from transformers.models.llava_next_video import modeling_llava_next_video as theirs

    # Tiles are laid side by side, and what lies in the padding around the image is left out.
    tiles = theirs.get_anyres_image_grid_shape(
        size, config.image_grid_pinpoints, config.vision_config.image_size
    )
    padded = torch.zeros(1, tiles[0] * patches, tiles[1] * patches)
    rows, cols = theirs.unpad_image(padded, size).shape[1:]
    row = ["image"] * cols + ["newline"]
    role = np.array(["image"] * patches**2 + row * rows, dtype="<U16")
    none, nowhere = np.full(len(role), -1), np.zeros((0, 2))
    return VisualGrid(role, none, none, none, (), nowhere, nowhere)


FAMILIES = (
    Family(
        model_type="llava_next_video",
        model_class="LlavaNextVideoForConditionalGeneration",
        title="LLaVA-NeXT-Video",
        example="llava-hf/LLaVA-NeXT-Video-7B-hf",
        grid=grid,
    ),
)
