"""LLaVA-OneVision: T x (rows x cols) tokens, pooled bilinearly, then one newline token."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from probe.models.family import Family
from probe.models.visual import Visual, VisualGrid, cells


def grid(config: Any, inputs: dict[str, Any], visual: Visual) -> VisualGrid:
    """The tokens of one clip: frame by frame in raster order, one newline at the end.

    Bilinear pooling to half the side reads, for each token, the two patches next to its centre
    along each axis; these are the edges of its cell.
    """
    vision = config.vision_config
    patches = vision.image_size // vision.patch_size
    if visual.kind == "image":
        return image_grid(config, inputs, visual, patches)
    side = math.ceil(patches / 2)
    centre = (np.arange(side) + 0.5) * patches / side - 0.5
    first = np.clip(np.floor(centre), 0, patches - 1)
    # A weight of zero on the second patch (odd grids) still counts as an edge of the cell.
    final = np.minimum(first + 2, patches)
    edges = np.stack([first, final], 1) * vision.patch_size / vision.image_size
    frames = [(frame,) for frame in range(visual.frames)]
    return with_newline(VisualGrid.raster("video", frames, edges, edges))


def image_grid(config: Any, inputs: dict[str, Any], visual: Visual, patches: int) -> VisualGrid:
    """The tokens of an image: the whole of it, then its tiles put together, a newline a row.

    The cells are those of the tiles; tokens of the whole image have none. Where several images
    are given each is only its whole, with one newline.
    """
    whole = patches * patches
    if visual.tokens == whole + 1:
        return with_newline(VisualGrid.raster("image", (), cells(patches), cells(patches)))
    rows, cols = tiled(config, inputs["image_sizes"][visual.number].tolist(), patches)
    tiles = VisualGrid.raster("image", (), cells(rows), cells(cols))
    none, line = np.full(whole, -1), np.full((rows, 1), -1)

    def lay(values: np.ndarray) -> np.ndarray:
        return np.concatenate([none, np.hstack([values.reshape(rows, cols), line]).ravel()])

    role = np.hstack([tiles.role.reshape(rows, cols), np.full((rows, 1), "newline")]).ravel()
    return VisualGrid(
        role=np.concatenate([np.full(whole, "image", "<U16"), role]),
        group=lay(tiles.group),
        row=lay(tiles.row),
        col=lay(tiles.col),
        frames=(),
        row_edges=tiles.row_edges,
        col_edges=tiles.col_edges,
    )


def tiled(config: Any, size: list[int], patches: int) -> tuple[int, int]:
    """(rows, columns) of an image's tiles, without padding, scaled down where they are many."""
    import torch
    from transformers.models.llava_onevision import modeling_llava_onevision as theirs

    tiles = theirs.get_anyres_image_grid_shape(
        size, config.image_grid_pinpoints, config.vision_config.image_size
    )
    whole = torch.empty(1, tiles[0] * patches, tiles[1] * patches, device="meta")
    _, rows, cols = theirs.unpad_image(whole, size).shape
    most = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
    ratio = math.sqrt(rows * cols / (most * patches**2))
    return (int(rows // ratio), int(cols // ratio)) if ratio > 1.1 else (rows, cols)


def with_newline(grid: VisualGrid) -> VisualGrid:
    """The grid with one newline token at its end."""
    newline = np.array([-1])
    return VisualGrid(
        role=np.append(grid.role, np.array(["newline"], "<U16")),
        group=np.concatenate([grid.group, newline]),
        row=np.concatenate([grid.row, newline]),
        col=np.concatenate([grid.col, newline]),
        frames=grid.frames,
        row_edges=grid.row_edges,
        col_edges=grid.col_edges,
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
