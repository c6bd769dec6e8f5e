"""Tiny models with random weights in the real classes, and small clips to show them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
)

from probe.models.encode import Example
from probe.models.given import Picture
from probe.models.loading import load
from probe.models.video_model import VideoModel
from probe.video import Clip

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} "
    "{% for c in m['content'] %}{% if c['type'] == 'video' %}<video>"
    "{% elif c['type'] == 'image' %}<image>"
    "{% endif %}{% endfor %}\n"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Geometry:
    """Shape of a tiny model; `image // patch` patches a side."""

    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    width: int = 32
    image: int = 56
    patch: int = 14
    tied: bool = False


EVEN = Geometry()
ODD = Geometry(layers=3, heads=6, kv_heads=3, width=48, image=70, tied=True)


def clip(count: int = 5, height: int = 40, width: int = 60, seed: int = 0) -> Clip:
    """Noise, two frames a second, every third frame of its file."""
    frames = np.random.default_rng(seed).integers(0, 255, (count, height, width, 3), dtype=np.uint8)
    return Clip(frames, np.arange(count) * 0.5, np.arange(count) * 3, 6.0, "noise", count / 2)


def picture(height: int, width: int) -> Picture:
    """Noise."""
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Picture(pixels)


def example(model: VideoModel, frames: Any = 5, question: str = "What moves?", **more) -> Example:
    """An encoded example; `frames` is a clip, a number of noise frames, or None."""
    shown = clip(frames) if isinstance(frames, int) else frames
    return model.encode(shown, question, frames=None, **more)


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|im_end|>",
        pad_token="<pad>",
        additional_special_tokens=["<|im_start|>", "<image>", "<video>"],
    )


def build(geometry: Geometry = EVEN, attention: str = "sdpa", seed: int = 0) -> VideoModel:
    """A model with large random weights, so that attention is far from uniform."""
    g, words = geometry, tokenizer()
    config = LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": g.image,
            "patch_size": g.patch,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen2",
            "hidden_size": g.width,
            "intermediate_size": 2 * g.width,
            "num_hidden_layers": g.layers,
            "num_attention_heads": g.heads,
            "num_key_value_heads": g.kv_heads,
            "vocab_size": len(words),
            "max_position_embeddings": 4096,
            "initializer_range": 0.15,
            "tie_word_embeddings": g.tied,
        },
        image_token_id=words.convert_tokens_to_ids("<image>"),
        video_token_id=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[g.image, g.image]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=g.tied,
    )
    torch.manual_seed(seed)
    hf = LlavaOnevisionForConditionalGeneration._from_config(
        config, attn_implementation=attention, dtype=torch.float32
    ).eval()
    torch.nn.init.normal_(hf.model.image_newline, std=0.3)
    for layer in hf.model.language_model.layers:  # zero by default, so that tests would miss them
        for name in ("q_proj", "k_proj", "v_proj"):
            torch.nn.init.normal_(getattr(layer.self_attn, name).bias, std=0.3)
        torch.nn.init.uniform_(layer.input_layernorm.weight, 0.5, 1.5)
    torch.nn.init.uniform_(hf.model.language_model.norm.weight, 0.5, 1.5)
    hf.generation_config.eos_token_id = None
    hf.generation_config.pad_token_id = 0
    size = {"height": g.image, "width": g.image}
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(
            size=size, image_grid_pinpoints=[[g.image, g.image]]
        ),
        tokenizer=words,
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(g.image // g.patch) ** 2,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE,
    )
    return load((hf, processor))


def twin(model: VideoModel, attention: str = "eager") -> VideoModel:
    """The same weights with another attention implementation: the reference for dense maps."""
    hf = (
        type(model.hf)
        ._from_config(
            model.hf.config.__class__(**model.hf.config.to_dict()),
            attn_implementation=attention,
            dtype=torch.float32,
        )
        .eval()
    )
    hf.load_state_dict(model.hf.state_dict())
    hf.generation_config = model.hf.generation_config
    return load((hf, model.processor))


def dense(eager: VideoModel, x: Example) -> np.ndarray:
    """[layer, head, query, key]: the attention maps that transformers itself returns."""
    with torch.no_grad():
        out = eager.hf(**x.inputs, output_attentions=True, use_cache=False)
    return torch.stack([layer[0] for layer in out.attentions]).numpy()
