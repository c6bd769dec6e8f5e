"""The testbed's model and processor, in the classes of LLaVA-OneVision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from probe.testbed.tokenizer import build_tokenizer

SIZE = 96
PATCH = 8
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] }}"
    "{% if message['content'] is string %}"
    "{{ '\\n' + message['content'] }}"
    "{% else %}"
    "{% if message['role'] == 'user' %}{{ ' ' }}{% endif %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'video' %}{{ '<video>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}"
    "{{ '\\n' + part['text'] }}{% endfor %}"
    "{% endif %}"
    "{{ '<|im_end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def build_config(tokenizer: Any, layers: int = 6) -> Any:
    """Sizes of the model: 1.7 million parameters."""
    from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

    vision = SiglipVisionConfig(
        hidden_size=96,
        intermediate_size=288,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        initializer_range=0.08,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[SIZE, SIZE]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )


def build_model(tokenizer: Any, seed: int = 0) -> Any:
    """The untrained model, in float32."""
    import torch
    from transformers import GenerationConfig, LlavaOnevisionForConditionalGeneration

    torch.manual_seed(seed)
    model = LlavaOnevisionForConditionalGeneration(build_config(tokenizer))
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    return model


def build_processor(tokenizer: Any) -> Any:
    """Image and video processors for 96 x 96 pixels, with the chat template."""
    from transformers import (
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    size = {"height": SIZE, "width": SIZE}
    mean = [0.5, 0.5, 0.5]
    shared = {"size": size, "image_mean": mean, "image_std": mean}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(image_grid_pinpoints=[[SIZE, SIZE]], **shared),
        video_processor=LlavaOnevisionVideoProcessor(**shared),
        tokenizer=tokenizer,
        num_image_tokens=(SIZE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )


def save(model: Any, processor: Any, folder: Path) -> None:
    """Write a checkpoint with float16 weights."""
    import copy

    import torch

    folder.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).to("cpu", torch.float16).save_pretrained(folder)
    processor.save_pretrained(folder)


def new(folder: Path, seed: int = 0) -> tuple[Any, Any]:
    """An untrained model and its processor, also written to `folder`."""
    tokenizer = build_tokenizer()
    model, processor = build_model(tokenizer, seed), build_processor(tokenizer)
    save(model, processor, folder)
    return model, processor
