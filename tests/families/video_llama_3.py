"""A tiny VideoLLaMA3."""

from __future__ import annotations

import torch
from transformers import (
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3ImageProcessor,
    VideoLlama3Processor,
    VideoLlama3VideoProcessor,
)

from probe.models.video_model import VideoModel
from tests.families.common import finish, randomise, text_config, token_id, tokenizer

PATCH = 14
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'text' %}{{ c['text'] }}{% else %}<|{{ c['type'] }}_pad|>\n{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(attention: str = "sdpa", seed: int = 0) -> VideoModel:
    """Patches of 14 pixels, four to a token; frames of 84 x 112 pixels are 3 x 4 tokens."""
    words = tokenizer("<|image_pad|>", "<|video_pad|>")
    config = VideoLlama3Config(
        vision_config={
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "patch_size": PATCH,
        },
        text_config=text_config("qwen2", words),
        image_token_id=token_id(words, "<|image_pad|>"),
        video_token_id=token_id(words, "<|video_pad|>"),
    )
    hf = VideoLlama3ForConditionalGeneration._from_config(
        config, attn_implementation=attention, dtype=torch.float32
    )
    randomise(hf, seed)
    size = {"shortest_edge": 28 * 28, "longest_edge": 100 * 112 * 112}
    processor = VideoLlama3Processor(
        image_processor=VideoLlama3ImageProcessor(size=size, merge_size=2),
        tokenizer=words,
        video_processor=VideoLlama3VideoProcessor(size=size, merge_size=2),
        chat_template=TEMPLATE,
    )
    return finish(hf, processor)
