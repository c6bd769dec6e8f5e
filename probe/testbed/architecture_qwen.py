"""The testbed's second model and processor, in the classes of Qwen2.5-VL.

Bai et al., Qwen2.5-VL Technical Report (2025): two frames share a token, four patches are merged
into one, vision layers attend in windows or fully, and the decoder's rotary positions have three
axes: time in seconds, row and column.
"""

from __future__ import annotations

from typing import Any

from probe.testbed.architecture import PATCH, SIZE

SPECIAL = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
WINDOW = 48
FULL = (1, 2)
MERGE, SPAN = 2, 2
TOKENS_PER_SECOND = 4
SECTIONS = (4, 6, 6)
THETA = 100.0
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}"
    "{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}"
    "{% endif %}"
    "{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def build_config(tokenizer: Any, layers: int = 6) -> Any:
    """Sizes of the model: 1.8 million parameters."""
    from transformers import Qwen2_5_VLConfig

    ids = tokenizer.convert_tokens_to_ids
    vision = {
        "depth": 3,
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_heads": 4,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": SPAN,
        "tokens_per_second": TOKENS_PER_SECOND,
        "window_size": WINDOW,
        "fullatt_block_indexes": list(FULL),
        "out_hidden_size": 128,
        "initializer_range": 0.08,
        "rope_parameters": {"rope_type": "axial", "rope_theta": THETA},
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": THETA,
            "mrope_section": list(SECTIONS),
        },
        "initializer_range": 0.08,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return Qwen2_5_VLConfig(
        vision_config=vision,
        text_config=text,
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        tie_word_embeddings=True,
    )


def build_model(tokenizer: Any, seed: int = 0) -> Any:
    """The untrained model, in float32."""
    import torch
    from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer))
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    return model


def build_processor(tokenizer: Any) -> Any:
    """Image and video processors that keep 96 x 96 pixels as they are, with the chat template."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    mean = [0.5, 0.5, 0.5]
    shared = {
        "size": {"shortest_edge": SIZE * SIZE, "longest_edge": SIZE * SIZE},
        "image_mean": mean,
        "image_std": mean,
        "patch_size": PATCH,
        "temporal_patch_size": SPAN,
        "merge_size": MERGE,
    }
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shared),
        video_processor=Qwen2VLVideoProcessor(**shared, cap_pixels_per_frame=False),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )


def take_decoder(model: Any, other: Any) -> None:
    """Start the decoder and its embeddings from testbed/onevision's, whose shapes are the same.

    Args:
        model: to start; in place.
        other: the loaded LLaVA-OneVision model.
    """
    import torch

    mine, theirs = model.model.language_model, other.model.language_model
    mine.layers.load_state_dict(theirs.layers.state_dict())
    mine.norm.load_state_dict(theirs.norm.state_dict())
    known, config = theirs.embed_tokens.weight, model.config
    with torch.no_grad():
        table = mine.embed_tokens.weight
        table[: len(known)] = known
        table[config.vision_start_token_id] = known.mean(0)
        table[config.vision_end_token_id] = other.model.image_newline
        table[config.image_token_id] = known[other.config.image_token_id]
        table[config.video_token_id] = known[other.config.video_token_id]
