"""GLM-4.1V: the cells of Qwen2-VL, each group of two frames followed by its second as text.

A prompt has clips or images, several of either: both are written with the image token, and
transformers cannot tell the ones from the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from probe.errors import ProbeError
from probe.models.families import qwen2_vl
from probe.models.family import Family
from probe.models.visual import Visual, VisualGrid


def grid(config: Any, inputs: dict[str, Any], visual: Visual) -> VisualGrid:
    """The cells of one clip or image, from the grid of patches that the processor states."""
    if "video_grid_thw" in inputs and "image_grid_thw" in inputs:
        raise ProbeError("GLM-4.1V takes clips or images in a prompt, not both; leave one out")
    return qwen2_vl.grid(config, inputs, visual)


def timestamps(visual: Visual, seconds: Float[np.ndarray, " frame"]) -> Float[np.ndarray, " group"]:
    """The first frame of each group, cut to a whole second."""
    assert visual.grid is not None
    return np.floor([seconds[group[0]] for group in visual.grid.frames])


FAMILIES = (
    Family(
        model_type="glm4v",
        model_class="Glm4vForConditionalGeneration",
        title="GLM-4.1V",
        example="zai-org/GLM-4.1V-9B-Thinking",
        grid=grid,
        video_token="image_token_id",
        timestamps=timestamps,
        timestamp_follows=True,
        vision="model.visual",
        projector="model.visual.merger",
        added=("post_self_attn_layernorm", "post_mlp_layernorm"),
    ),
)
