"""VideoLLaMA3: frames of any resolution behind their times, tokens that stay the same left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from probe.models.family import Family
from probe.models.visual import Visual, VisualGrid


def grid(config: Any, inputs: dict[str, Any], visual: Visual) -> VisualGrid:
    """The tokens of one clip, frame by frame in raster order, or of one image.

    The processor leaves out tokens of a clip whose pixels hardly differ from those of the frame
    before. Merging by bilinear interpolation reads the two patches next to a token's centre.
    """
    sizes, merges = inputs[f"{visual.kind}_grid_thw"], inputs[f"{visual.kind}_merge_sizes"]
    groups, height, width = sizes[visual.number].tolist()
    merge = int(merges[visual.number])
    row_edges, col_edges = _edges(height, merge), _edges(width, merge)
    if visual.kind == "image":
        return VisualGrid.raster("image", [], row_edges, col_edges)
    together = -(-visual.frames // groups)
    frames = [
        tuple(range(visual.frames))[group * together : (group + 1) * together]
        for group in range(groups)
    ]
    every = VisualGrid.raster("video", frames, row_edges, col_edges)
    counts = (sizes.prod(-1) // merges**2).tolist()
    kept = inputs["video_compression_mask"].split(counts)[visual.number].cpu().numpy()
    return replace(
        every,
        role=every.role[kept],
        group=every.group[kept],
        row=every.row[kept],
        col=every.col[kept],
    )


def _edges(patches: int, merge: int) -> np.ndarray:
    centre = (np.arange(patches // merge) + 0.5) * merge - 0.5
    return np.stack([np.floor(centre), np.ceil(centre) + 1], 1) / patches


def timestamps(visual: Visual, seconds: Any) -> Any:
    """The text gives the seconds of each frame with one decimal, of a clock of milliseconds."""
    return np.array([float(f"{round(second, 3):.1f}") for second in seconds])


FAMILIES = (
    Family(
        model_type="video_llama_3",
        model_class="VideoLlama3ForConditionalGeneration",
        title="VideoLLaMA3",
        example="lkhl/VideoLLaMA3-2B-Image-HF",
        grid=grid,
        timestamps=timestamps,
        vision="model.vision_model",
        projector="model.projector",
    ),
)
