"""A tiny Qwen3-VL with a mixture of experts in every layer but one."""

from __future__ import annotations

from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

from probe.models.video_model import VideoModel
from tests.families.common import tokenizer
from tests.families.qwen3_vl import SPECIAL, configuration, made


def build(attention: str = "sdpa", seed: int = 0) -> VideoModel:
    """A model with large random weights; two of four experts answer for each token."""
    words = tokenizer(*SPECIAL)
    shared = configuration(words)
    shared["text_config"] |= {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "mlp_only_layers": [1],
        "tie_word_embeddings": False,
    }
    config = Qwen3VLMoeConfig(**shared)
    return made(Qwen3VLMoeForConditionalGeneration, config, words, attention, seed)
