"""A tiny InstructBLIP-Video: a Q-Former before a Llama."""

from __future__ import annotations

import torch
from transformers import (
    InstructBlipVideoConfig,
    InstructBlipVideoForConditionalGeneration,
    InstructBlipVideoProcessor,
    InstructBlipVideoVideoProcessor,
)

from probe.models.video_model import VideoModel
from tests.families.common import finish, randomise, tokenizer

IMAGE, QUERIES = 28, 3


def build(attention: str = "sdpa", seed: int = 0) -> VideoModel:
    """A model with large random weights."""
    words, qformer_words = tokenizer("<video>", bos="<s>"), tokenizer()
    config = InstructBlipVideoConfig(
        vision_config={
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": IMAGE,
            "patch_size": 7,
        },
        qformer_config={
            "vocab_size": len(qformer_words),
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(words),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
        },
        num_query_tokens=QUERIES,
        video_token_index=words.convert_tokens_to_ids("<video>"),
    )
    hf = InstructBlipVideoForConditionalGeneration._from_config(
        config, attn_implementation=attention, dtype=torch.float32
    )
    randomise(hf, seed)
    processor = InstructBlipVideoProcessor(
        InstructBlipVideoVideoProcessor(size={"height": IMAGE, "width": IMAGE}),
        words,
        qformer_words,
        num_query_tokens=QUERIES,
    )
    return finish(hf, processor)
