"""A tiny SmolVLM."""

from __future__ import annotations

import torch
from transformers import (
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from probe.models.video_model import VideoModel
from tests.families.common import finish, randomise, text_config, token_id, tokenizer

IMAGE, PATCH = 84, 14
# Its processor has a template of its own for prompts with a clip; this one is for the others.
TEMPLATE = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}"
    "{{ ':' if m['content'][0]['type'] == 'image' else ': ' }}{% for c in m['content'] %}"
    "{% if c['type'] == 'text' %}{{ c['text'] }}{% else %}<{{ c['type'] }}>{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def build(attention: str = "sdpa", seed: int = 0) -> VideoModel:
    """6 x 6 patches, shuffled together to 3 x 3 tokens a frame."""
    tiles = [f"<row_{row}_col_{col}>" for row in range(1, 4) for col in range(1, 4)]
    words = tokenizer(
        "<video>",
        *tiles,
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
        end_of_utterance_token="<end_of_utterance>",
    )
    config = SmolVLMConfig(
        vision_config={
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": IMAGE,
            "patch_size": PATCH,
        },
        text_config=text_config("llama", words),
        image_token_id=token_id(words, "<image>"),
        scale_factor=2,
    )
    hf = SmolVLMForConditionalGeneration._from_config(
        config, attn_implementation=attention, dtype=torch.float32
    )
    randomise(hf, seed)
    once, twice = {"longest_edge": IMAGE}, {"longest_edge": 2 * IMAGE}
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(size=twice, max_image_size=once),
        words,
        SmolVLMVideoProcessor(size=once, max_image_size=once, num_frames=64, fps=1),
        image_seq_len=9,
        chat_template=TEMPLATE,
    )
    return finish(hf, processor)
