"""A tiny Qwen3-VL: three axes of positions, timestamps as text, deepstack after two layers."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    PreTrainedModel,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from probe.models.video_model import VideoModel
from tests.families.common import finish, randomise, tokenizer

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}"
    "{% else %}<|vision_start|><|{{ c['type'] }}_pad|><|vision_end|>{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
PATCH = 8  # two by two of them make a token


def build(attention: str = "sdpa", seed: int = 0) -> VideoModel:
    """A model with large random weights."""
    words = tokenizer(*SPECIAL)
    config = Qwen3VLConfig(**configuration(words))
    return made(Qwen3VLForConditionalGeneration, config, words, attention, seed)


def configuration(words: Any) -> dict[str, Any]:
    """What dense and mixture-of-experts checkpoints have in common."""
    ids = dict(zip(SPECIAL, words.convert_tokens_to_ids(list(SPECIAL)), strict=True))
    return {
        "vision_config": {
            "depth": 3,
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_heads": 3,
            "patch_size": PATCH,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
        "text_config": {
            "vocab_size": len(words),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
        },
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


def made(
    kind: type[PreTrainedModel], config: Any, words: Any, attention: str, seed: int
) -> VideoModel:
    """The model of a configuration, with the processor that both kinds use."""
    hf = kind._from_config(config, attn_implementation=attention, dtype=torch.float32)
    randomise(hf, seed)
    size = {"shortest_edge": (2 * PATCH) ** 2, "longest_edge": 64 * (2 * PATCH) ** 2}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=PATCH, size=size),
        tokenizer=words,
        video_processor=Qwen3VLVideoProcessor(
            patch_size=PATCH, size=size, cap_pixels_per_frame=False
        ),
        chat_template=TEMPLATE,
    )
    return finish(hf, processor, module="qwen3_vl")
