"""A tiny GLM-4.1V: norms after attention and MLP, half of each head rotated, in pairs."""

from __future__ import annotations

import torch
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessor,
    Glm4vProcessor,
    Glm4vVideoProcessor,
)

from probe.models.video_model import VideoModel
from tests.families.common import finish, randomise, tokenizer

TEMPLATE = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m['role'] }}|>\n"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}"
    "{% else %}<|begin_of_{{ c['type'] }}|><|{{ c['type'] }}|><|end_of_{{ c['type'] }}|>{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
KINDS = ("image", "video")
SPECIAL = (
    *("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
    *(f"<|{part}{kind}|>" for kind in KINDS for part in ("", "begin_of_", "end_of_")),
)
PATCH = 8  # two by two of them make a token


def build(attention: str = "sdpa", seed: int = 0) -> VideoModel:
    """A model with large random weights."""
    words = tokenizer(*SPECIAL)
    ids = {
        f"{kind}{name}_token_id": words.convert_tokens_to_ids(f"<|{part}{kind}|>")
        for kind in KINDS
        for part, name in (("", ""), ("begin_of_", "_start"), ("end_of_", "_end"))
    }
    config = Glm4vConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_heads": 3,
            "patch_size": PATCH,
            "image_size": 4 * PATCH,
            "out_hidden_size": 64,
        },
        text_config={
            "vocab_size": len(words),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [2, 1, 1],
            },
        },
        **ids,
    )
    hf = Glm4vForConditionalGeneration._from_config(
        config, attn_implementation=attention, dtype=torch.float32
    )
    randomise(hf, seed)
    size = {"shortest_edge": (2 * PATCH) ** 2, "longest_edge": 64 * (2 * PATCH) ** 2}
    processor = Glm4vProcessor(
        image_processor=Glm4vImageProcessor(patch_size=PATCH, size=size),
        tokenizer=words,
        video_processor=Glm4vVideoProcessor(patch_size=PATCH, size=size),
        chat_template=TEMPLATE,
    )
    return finish(hf, processor)
