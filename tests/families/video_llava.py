"""A tiny Video-LLaVA."""

from __future__ import annotations

import torch
from transformers import (
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
    VideoLlavaImageProcessor,
    VideoLlavaProcessor,
    VideoLlavaVideoProcessor,
)

from probe.models.video_model import VideoModel
from tests.families.common import finish, randomise, text_config, token_id, tokenizer

IMAGE, PATCH = 42, 14
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}USER: {% elif m['role'] == 'assistant' %}"
    "ASSISTANT: {% endif %}{% for c in m['content'] %}"
    "{% if c['type'] in ['image', 'video'] %}<{{ c['type'] }}>{% endif %}{% endfor %}"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{{ '</s>' if m['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def build(attention: str = "sdpa", seed: int = 0) -> VideoModel:
    """One CLS token and 3 x 3 patches a frame."""
    words = tokenizer("<image>", "<video>", "</s>", bos="<s>")
    config = VideoLlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "image_size": IMAGE,
            "patch_size": PATCH,
            "projection_dim": 16,
        },
        text_config=text_config("llama", words),
        image_token_index=token_id(words, "<image>"),
        video_token_index=token_id(words, "<video>"),
    )
    hf = VideoLlavaForConditionalGeneration._from_config(
        config, attn_implementation=attention, dtype=torch.float32
    )
    randomise(hf, seed)
    size, crop = {"shortest_edge": IMAGE}, {"height": IMAGE, "width": IMAGE}
    processor = VideoLlavaProcessor(
        image_processor=VideoLlavaImageProcessor(size=size, crop_size=crop),
        video_processor=VideoLlavaVideoProcessor(size=size, crop_size=crop),
        tokenizer=words,
        patch_size=PATCH,
        chat_template=TEMPLATE,
    )
    return finish(hf, processor)
