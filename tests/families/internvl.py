"""A tiny InternVL."""

from __future__ import annotations

import torch
from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
)

from probe.models.video_model import VideoModel
from tests.families.common import finish, randomise, text_config, token_id, tokenizer

IMAGE, PATCH = 84, 14
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<IMG_CONTEXT>\n{% elif c['type'] == 'video' %}<video>\n"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(attention: str = "sdpa", seed: int = 0) -> VideoModel:
    """6 x 6 patches, shuffled together to 3 x 3 tokens a frame."""
    words = tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = InternVLConfig(
        vision_config={
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": IMAGE,
            "patch_size": PATCH,
            "attention_bias": True,
        },
        text_config=text_config("qwen2", words),
        image_token_id=token_id(words, "<IMG_CONTEXT>"),
        image_seq_length=9,
        tie_word_embeddings=False,
    )
    hf = InternVLForConditionalGeneration._from_config(
        config, attn_implementation=attention, dtype=torch.float32
    )
    randomise(hf, seed)
    size = {"height": IMAGE, "width": IMAGE}
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=size, max_patches=4),
        tokenizer=words,
        video_processor=InternVLVideoProcessor(size=size),
        image_seq_length=9,
        chat_template=TEMPLATE,
    )
    return finish(hf, processor)
