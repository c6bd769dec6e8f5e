"""A model with random weights and a long clip, for benchmarks: not a script of its own.

A LLaVA-OneVision with a decoder of any shape, a vision tower too small to matter, and 196 tokens a
frame as in the published checkpoints.
"""

from __future__ import annotations

import numpy as np
import torch
import transformers

import probe
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from probe.testbed.architecture import CHAT_TEMPLATE
from probe.testbed.tokenizer import build_tokenizer

SIDE, PATCH = 112, 4  # 28 x 28 patches, pooled to 14 x 14 tokens
FRAME_TOKENS = 196


def build(
    tokens: int,
    *,
    layers: int = 6,
    heads: int = 8,
    width: int = 512,
    mlp: int = 1408,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    eager: bool = False,
) -> tuple[VideoModel, Example]:
    """The model, and an example of about that many tokens.

    Args:
        tokens: of the prompt, rounded to whole frames.
        layers, heads, width, mlp: of the decoder.
        device, dtype: of the weights.
        eager: transformers' eager attention in the decoder in place of sdpa.
    """
    tokenizer = build_tokenizer()
    config = transformers.LlavaOnevisionConfig(
        vision_config=transformers.SiglipVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
            image_size=SIDE, patch_size=PATCH, vision_use_head=False,
        ),
        text_config=transformers.Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=mlp,
            num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
            max_position_embeddings=32768, initializer_range=0.08,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[SIDE, SIDE]], vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )  # fmt: skip
    attention = {"text_config": "eager" if eager else "sdpa", "vision_config": "sdpa"}
    torch.manual_seed(0)
    kind = transformers.LlavaOnevisionForConditionalGeneration
    hf = kind._from_config(config, attn_implementation=attention, dtype=dtype).to(device).eval()
    size = {"height": SIDE, "width": SIDE}
    processor = transformers.LlavaOnevisionProcessor(
        image_processor=transformers.LlavaOnevisionImageProcessor(
            size=size, image_grid_pinpoints=[[SIDE, SIDE]]
        ),
        video_processor=transformers.LlavaOnevisionVideoProcessor(size=size),
        tokenizer=tokenizer,
        num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )
    frames = round(tokens / FRAME_TOKENS)
    video = np.random.default_rng(0).integers(0, 255, (frames, SIDE, SIDE, 3), dtype=np.uint8)
    model = probe.load((hf, processor))
    return model, model.encode(video, "Which object moves first?", frames=frames)
