"""Molmo2: patches pooled in windows; one view of each frame of a clip, two views of an image.

The model takes one clip, or any number of images.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from probe.errors import ProbeError
from probe.models.family import Family
from probe.models.visual import Visual, VisualGrid


def grid(config: Any, inputs: dict[str, Any], visual: Visual) -> VisualGrid:
    """Windows row by row, frame after frame. Of an image first the whole at low resolution, then
    its high-resolution canvas, whose rows and columns are numbered on after those of the first.
    """
    clip = visual.kind == "video"
    if "video_grids" in inputs and "image_grids" in inputs:
        raise ProbeError("Molmo2 takes one clip or images in a prompt, not both; leave one out")
    shapes = inputs["video_grids" if clip else "image_grids"].cpu().numpy()
    pooling = inputs["video_token_pooling" if clip else "image_token_pooling"].cpu().numpy()
    counts = shapes.prod(1) if clip else shapes[:, :2].prod(1) + shapes[:, 2:].prod(1)
    start = int(counts[: visual.number].sum())
    own = pooling[start : start + counts[visual.number]]
    shape = [int(side) for side in shapes[visual.number]]
    if clip:
        frames = [(frame,) for frame in range(shape[0])]
        return VisualGrid.raster("video", frames, *_windows(own, shape[1], shape[2]))
    low = VisualGrid.raster("image", (), *_windows(own, shape[0], shape[1]))
    high = VisualGrid.raster("image", (), *_windows(own[len(low.role) :], shape[2], shape[3]))
    return VisualGrid(
        role=np.concatenate([low.role, high.role]),
        group=np.concatenate([low.group, high.group]),
        row=np.concatenate([low.row, high.row + len(low.row_edges)]),
        col=np.concatenate([low.col, high.col + len(low.col_edges)]),
        frames=(),
        row_edges=np.concatenate([low.row_edges, high.row_edges]),
        col_edges=np.concatenate([low.col_edges, high.col_edges]),
    )


def _windows(
    pooling: Int[np.ndarray, "token place"], rows: int, cols: int
) -> tuple[Float[np.ndarray, "row 2"], Float[np.ndarray, "col 2"]]:
    """Edges of the rows and of the columns of windows that cover a view.

    The pooling table has the patches of each square window, and -1 for places outside the view:
    windows at its border are smaller.
    """
    side = math.isqrt(pooling.shape[1])
    inside = (pooling[: rows * cols] >= 0).reshape(rows, cols, side, side)
    patches = inside.any((1, 3)).sum(1), inside.any((0, 2)).sum(1)
    tall, wide = (np.stack([n.cumsum() - n, n.cumsum()], 1) / n.sum() for n in patches)
    return tall, wide


def timestamps(visual: Visual, seconds: Float[np.ndarray, " frame"]) -> Float[np.ndarray, " group"]:
    """Each frame's own, written with one decimal."""
    return np.asarray(seconds, dtype=float)


def adapt(family: Family, config: Any) -> Family:
    """With `norm_after` (Molmo2-O) the norms follow attention and MLP under their usual names."""
    if not config.text_config.norm_after:
        return family
    return replace(family, added=("input_layernorm", "post_attention_layernorm"))


FAMILIES = (
    Family(
        model_type="molmo2",
        model_class="Molmo2ForConditionalGeneration",
        title="Molmo2",
        example="allenai/Molmo2-8B",
        grid=grid,
        timestamps=timestamps,
        adapt=adapt,
    ),
)
