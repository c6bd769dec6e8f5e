"""A tiny LLaVA-NeXT-Video."""

from __future__ import annotations

import torch
from transformers import (
    LlavaNextImageProcessor,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaNextVideoProcessor,
    LlavaNextVideoVideoProcessor,
)

from probe.models.video_model import VideoModel
from tests.families.common import finish, randomise, text_config, token_id, tokenizer

IMAGE, PATCH = 84, 14
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}USER: {% elif m['role'] == 'assistant' %}"
    "ASSISTANT: {% endif %}{% for c in m['content'] %}"
    "{% if c['type'] in ['image', 'video'] %}<{{ c['type'] }}>\n{% endif %}{% endfor %}"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{{ '</s>' if m['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def build(attention: str = "sdpa", seed: int = 0) -> VideoModel:
    """6 x 6 patches, pooled to 3 x 3 tokens a frame; the CLS token is dropped."""
    words = tokenizer("<image>", "<video>", "</s>", bos="<s>")
    pinpoints = [[IMAGE, 2 * IMAGE], [2 * IMAGE, IMAGE], [IMAGE, IMAGE]]
    config = LlavaNextVideoConfig(
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
        image_grid_pinpoints=pinpoints,
    )
    hf = LlavaNextVideoForConditionalGeneration._from_config(
        config, attn_implementation=attention, dtype=torch.float32
    )
    randomise(hf, seed)
    size, crop = {"shortest_edge": IMAGE}, {"height": IMAGE, "width": IMAGE}
    processor = LlavaNextVideoProcessor(
        video_processor=LlavaNextVideoVideoProcessor(size=size, crop_size=crop),
        image_processor=LlavaNextImageProcessor(
            size=size, crop_size=crop, image_grid_pinpoints=pinpoints
        ),
        tokenizer=words,
        chat_template=TEMPLATE,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return finish(hf, processor)
