"""SmolVLM: every frame an image of its own behind its time, patches shuffled together."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from probe.models.family import Family
from probe.models.visual import Visual, VisualGrid


def grid(config: Any, inputs: dict[str, Any], visual: Visual) -> VisualGrid:
    """The tokens of one clip, frame by frame in raster order, or of one image.

    Frames are made square, whatever their shape. Large images are cut into tiles with a small
    picture of all of it at the end; no grid holds them all, so that their tokens have no cell.
    """
    vision = config.vision_config
    side = vision.image_size // vision.patch_size // config.scale_factor
    edges = np.stack([np.arange(side), np.arange(1, side + 1)], 1) / side
    if visual.kind == "video":
        frames = [(frame,) for frame in range(visual.frames)]
        return VisualGrid.raster("video", frames, edges, edges)
    if visual.tokens == side**2:
        return VisualGrid.raster("image", [], edges, edges)
    none, nowhere = np.full(visual.tokens, -1), np.zeros((0, 2))
    role = np.full(visual.tokens, "image", dtype="<U16")
    return VisualGrid(role, none, none, none, (), nowhere, nowhere)


def process(
    processor: Any, prompt: str, videos: list[Any], metadata: list[Any], images: list[Any]
) -> dict[str, Any]:
    """The inputs, where a prompt has clips and images too: the processor gives both one name and
    keeps only the pixels of the clips.
    """
    import torch

    given: dict[str, Any] = {"images": images} if images else {}
    if videos:
        given |= {"videos": [videos], "video_metadata": [metadata], "do_sample_frames": False}
    inputs = dict(processor(text=[prompt], return_tensors="pt", **given))
    if not (videos and images):
        return inputs
    left = {
        processor.video_token: [
            processor.video_processor([v], do_sample_frames=False, return_tensors="pt")
            for v in videos
        ],
        processor.image_token: [
            processor.image_processor([i], return_tensors="pt") for i in images
        ],
    }
    order = re.findall("|".join(map(re.escape, left)), prompt)
    every = [left[token].pop(0) for token in order]
    for name in ("pixel_values", "pixel_attention_mask"):
        inputs[name] = torch.cat([one[name] for one in every], 1)
    return inputs


def timestamps(visual: Visual, seconds: Any) -> Any:
    """The text gives minutes and whole seconds, cut off, of a clock of milliseconds."""
    return np.floor(np.round(np.asarray(seconds, dtype=float), 3))


FAMILIES = (
    Family(
        model_type="smolvlm",
        model_class="SmolVLMForConditionalGeneration",
        title="SmolVLM",
        example="HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        grid=grid,
        video_token="image_token_id",
        timestamps=timestamps,
        process=process,
        decoder="model.text_model",
        vision="model.vision_model",
        projector="model.connector",
    ),
)
