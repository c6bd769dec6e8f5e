"""Qwen3-VL, dense and mixture of experts: the cells of Qwen2-VL, each group after its time as text.

Frames are resized whole; clips and images may be mixed, several of each. Vision features are added
again after the first decoder layers ("deepstack").
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from probe.models.families.qwen2_vl import grid
from probe.models.family import Family
from probe.models.visual import Visual


def timestamps(visual: Visual, seconds: Float[np.ndarray, " frame"]) -> Float[np.ndarray, " group"]:
    """The middle between the first and the last frame of each group, written with one decimal."""
    assert visual.grid is not None
    return np.array([(seconds[group[0]] + seconds[group[-1]]) / 2 for group in visual.grid.frames])


_DENSE = Family(
    model_type="qwen3_vl",
    model_class="Qwen3VLForConditionalGeneration",
    title="Qwen3-VL",
    example="Qwen/Qwen3-VL-4B-Instruct",
    grid=grid,
    timestamps=timestamps,
    vision="model.visual",
    projector="model.visual.merger",
)

FAMILIES = (
    _DENSE,
    replace(
        _DENSE,
        model_type="qwen3_vl_moe",
        model_class="Qwen3VLMoeForConditionalGeneration",
        title="Qwen3-VL, mixture of experts",
        example="Qwen/Qwen3-VL-30B-A3B-Instruct",
    ),
)
