"""A tiny Molmo2: patches pooled in windows, two kinds of rotary tables among the layers."""

from __future__ import annotations

import torch
from transformers import (
    Molmo2Config,
    Molmo2ForConditionalGeneration,
    Molmo2ImageProcessor,
    Molmo2Processor,
    Molmo2VideoProcessor,
)

from probe.models.video_model import VideoModel
from tests.families.common import finish, randomise, tokenizer

TEMPLATE = (
    "{% for m in messages %}"
    "{% for c in m['content'] %}{% if c['type'] != 'text' %}<|{{ c['type'] }}|>{% endif %}"
    "{% endfor %}<|im_start|>{{ m['role'] }}\n"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REGION = {
    "image_start_token_id": "<im_start>",
    "low_res_image_start_token_id": "<low_res_im_start>",
    "image_end_token_id": "<im_end>",
    "image_patch_id": "<im_patch>",
    "frame_start_token_id": "<frame_start>",
    "frame_end_token_id": "<frame_end>",
}
SPECIAL = ("<|endoftext|>", "<|image|>", "<|video|>", "<im_col>", "<im_low>", *REGION.values())
PATCH, SIDE = 8, 5  # five by five patches, in windows of two (images) or three (frames)


def build(attention: str = "sdpa", seed: int = 0) -> VideoModel:
    """A model with large random weights."""
    words = tokenizer(*SPECIAL)
    config = Molmo2Config(
        vision_config={
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "head_dim": 8,
            "image_size": [PATCH * SIDE, PATCH * SIDE],
            "patch_size": PATCH,
        },
        adapter_config={
            "vision_feature_layer": [2, 0],
            "hidden_size": 24,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "head_dim": 8,
            "intermediate_size": 48,
            "text_hidden_size": 32,
        },
        text_config={
            "vocab_size": len(words),
            "additional_vocab_size": 8,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
            "rope_scaling_layers": [0, 2],
        },
        **{name: words.convert_tokens_to_ids(token) for name, token in REGION.items()},
    )
    hf = Molmo2ForConditionalGeneration._from_config(
        config, attn_implementation=attention, dtype=torch.float32
    )
    randomise(hf, seed)
    with torch.no_grad():  # without a norm the features would drown the embeddings they join
        hf.model.multi_modal_projector.image_projector.down_proj.weight.mul_(0.1)
    size = {"height": PATCH * SIDE, "width": PATCH * SIDE}
    processor = Molmo2Processor(
        image_processor=Molmo2ImageProcessor(
            size=size, patch_size=PATCH, overlap_margins=[1, 1], max_crops=4
        ),
        video_processor=Molmo2VideoProcessor(
            size=size, patch_size=PATCH, do_rescale=True, do_normalize=True
        ),
        tokenizer=words,
        chat_template=TEMPLATE,
    )
    return finish(hf, processor)
