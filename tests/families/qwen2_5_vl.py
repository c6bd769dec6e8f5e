"""A tiny Qwen2.5-VL: windowed and full vision layers, rotary positions with three axes."""

from __future__ import annotations

import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from probe.models.video_model import VideoModel
from tests.families import common

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for c in m['content'] %}"
    "{% if c['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [1, 1, 2]},
}
SIZE = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}


def token_ids(words) -> dict[str, int]:
    """The fields of a Qwen config that name special tokens."""
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    ids = words.convert_tokens_to_ids(list(SPECIAL))
    return dict(zip(names, ids, strict=True))


def build(attention: str = "sdpa", seed: int = 0) -> VideoModel:
    """4 layers, 4 heads over 2; patches of 8 pixels, two by two and two frames to a token."""
    words = common.tokenizer(*SPECIAL)
    config = Qwen2_5_VLConfig(
        text_config=TEXT | {"vocab_size": len(words)},
        vision_config={
            "depth": 3,
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 32,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 4,
        },
        **token_ids(words),
    )
    hf = Qwen2_5_VLForConditionalGeneration._from_config(
        config, attn_implementation=attention, dtype=torch.float32
    )
    common.randomise(hf, seed)
    shape = {"patch_size": 8, "size": SIZE}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shape),
        tokenizer=words,
        video_processor=Qwen2VLVideoProcessor(**shape, cap_pixels_per_frame=False),
        chat_template=TEMPLATE,
    )
    return common.finish(hf, processor, "qwen2_vl")
