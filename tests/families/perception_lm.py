"""A tiny Perception LM."""

from __future__ import annotations

import torch
from transformers import (
    PerceptionLMConfig,
    PerceptionLMForConditionalGeneration,
    PerceptionLMImageProcessor,
    PerceptionLMProcessor,
    PerceptionLMVideoProcessor,
)

from probe.models.video_model import VideoModel
from tests.families.common import finish, randomise, text_config, token_id, tokenizer

IMAGE, PATCH = 84, 14
TEMPLATE = (
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% else %}"
    "<|{{ c['type'] }}|>{% endif %}{% endfor %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def build(attention: str = "sdpa", seed: int = 0) -> VideoModel:
    """6 x 6 patches, pooled to 3 x 3 tokens a frame; the CLS token is dropped."""
    words = tokenizer(
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        image_token="<|image|>",
        video_token="<|video|>",
        bos="<|begin_of_text|>",
    )
    config = PerceptionLMConfig(
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": "vit_pe_lang_large_patch14_448",
            "model_args": {
                "embed_dim": 24,
                "depth": 2,
                "num_heads": 3,
                "img_size": [IMAGE, IMAGE],
                "ref_feat_shape": [IMAGE // PATCH, IMAGE // PATCH],
                "global_pool": "",
            },
            "do_pooling": False,
        },
        text_config=text_config("llama", words),
        image_token_id=token_id(words, "<|image|>"),
        video_token_id=token_id(words, "<|video|>"),
        projector_pooling_ratio=2,
    )
    hf = PerceptionLMForConditionalGeneration._from_config(
        config, attn_implementation=attention, dtype=torch.float32
    )
    randomise(hf, seed)
    size = {"height": IMAGE, "width": IMAGE}
    processor = PerceptionLMProcessor(
        video_processor=PerceptionLMVideoProcessor(size=size),
        image_processor=PerceptionLMImageProcessor(tile_size=IMAGE, max_num_tiles=4),
        tokenizer=words,
        patch_size=PATCH,
        pooling_ratio=2,
        chat_template=TEMPLATE,
    )
    return finish(hf, processor)
