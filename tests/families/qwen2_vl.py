"""A tiny Qwen2-VL."""

from __future__ import annotations

import torch
from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from probe.models.video_model import VideoModel
from tests.families import common
from tests.families.qwen2_5_vl import SIZE, SPECIAL, TEMPLATE, TEXT, token_ids


def build(attention: str = "sdpa", seed: int = 0) -> VideoModel:
    """4 layers, 4 heads over 2; patches of 8 pixels, two by two and two frames to a token."""
    words = common.tokenizer(*SPECIAL)
    config = Qwen2VLConfig(
        text_config=TEXT | {"vocab_size": len(words)},
        vision_config={
            "depth": 2,
            "embed_dim": 24,
            "hidden_size": 32,
            "mlp_ratio": 2,
            "num_heads": 2,
            "patch_size": 8,
        },
        **token_ids(words),
    )
    hf = Qwen2VLForConditionalGeneration._from_config(
        config, attn_implementation=attention, dtype=torch.float32
    )
    common.randomise(hf, seed)
    shape = {"patch_size": 8, "size": SIZE}
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shape),
        tokenizer=words,
        video_processor=Qwen2VLVideoProcessor(**shape, cap_pixels_per_frame=False),
        chat_template=TEMPLATE,
    )
    return common.finish(hf, processor)
