"""A video model that is not in transformers, made known to probe and examined.

    python experiments/own_family.py

The model is tiny and untrained: a convolution makes 3 x 3 tokens of every frame, a Llama decoder
reads them. What probe needs to know of it is the `Family` below; `probe doctor`'s checks tell
whether it is right.
"""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    GenerationMixin,
    LlamaConfig,
    LlamaModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from probe.models import Family, Visual, VisualGrid, register

SIDE, CELL = 3, 16


class OwnConfig(PreTrainedConfig):
    """Llama's config, and the token that stands for a video token."""

    model_type = "own_video_lm"
    sub_configs = {"text_config": LlamaConfig}  # noqa: RUF012

    def __init__(self, text_config: dict | None = None, video_token_id: int = 0, **more) -> None:
        self.text_config = LlamaConfig(**(text_config or {}))
        self.video_token_id = video_token_id
        super().__init__(**more)


class OwnVideoLM(PreTrainedModel, GenerationMixin):
    """Frames through a convolution, then Llama. Only the attention has to be transformers' own."""

    config_class = OwnConfig
    _supports_sdpa = True

    def __init__(self, config: OwnConfig) -> None:
        super().__init__(config)
        text = config.text_config
        self.eye = nn.Conv2d(3, text.hidden_size, CELL, CELL)
        self.decoder = LlamaModel(text)
        self.words = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.decoder.embed_tokens

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        frames: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: object,
    ) -> CausalLMOutputWithPast:
        embeds = self.decoder.embed_tokens(input_ids)
        if frames is not None:
            seen = self.eye(frames).flatten(2).transpose(1, 2).flatten(0, 1)
            here = (input_ids == self.config.video_token_id)[..., None]
            embeds = embeds.masked_scatter(here, seen)
        out = self.decoder(inputs_embeds=embeds, attention_mask=attention_mask, **kwargs)
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.words(out.last_hidden_state[:, keep])
        return CausalLMOutputWithPast(
            logits=logits, past_key_values=out.past_key_values, attentions=out.attentions
        )

    def prepare_inputs_for_generation(self, *args: object, **kwargs: object) -> dict:
        inputs = super().prepare_inputs_for_generation(*args, **kwargs)
        cache = inputs.get("past_key_values")
        if cache is not None and cache.get_seq_length() > 0:
            inputs["frames"] = None  # the video is in the cache
        return inputs


class OwnProcessor:
    """Its tokenizer, its prompt, and pixels between 0 and 1."""

    video_token, chat_template = "<video>", "own"

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer

    def apply_chat_template(self, messages: list, **_: object) -> str:
        parts = [part for message in messages for part in message["content"]]
        return "".join(part.get("text") or "<video>" for part in parts) + " Answer:"

    def __call__(self, text: list[str], videos: list | None = None, **_: object) -> dict:
        frames = torch.cat(videos).float() / 255 if videos else None
        if frames is not None:
            frames = nn.functional.interpolate(frames, (SIDE * CELL, SIDE * CELL), mode="area")
            text = [text[0].replace("<video>", "<video>" * (len(frames) * SIDE * SIDE))]
        encoded = self.tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        return dict(encoded) | ({} if frames is None else {"frames": frames})


def grid(config: OwnConfig, inputs: dict, visual: Visual) -> VisualGrid:
    """3 x 3 cells of every frame, row by row."""
    edges = np.stack([np.arange(SIDE), np.arange(1, SIDE + 1)], 1) / SIDE
    return VisualGrid.raster("video", [(n,) for n in range(visual.frames)], edges, edges)


FAMILY = Family(
    model_type="own_video_lm",
    model_class=OwnVideoLM,
    title="My video model",
    example="./my-checkpoint",
    grid=grid,
    image_token=None,
    decoder="decoder",
    vision=None,  # no attention before the decoder
    projector=None,
    head="words",
)


def build() -> tuple[OwnVideoLM, OwnProcessor]:
    """The untrained model and its processor."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, additional_special_tokens=["<video>"], pad_token="<pad>"
    )
    text = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
            "initializer_range": 0.2}  # fmt: skip
    torch.manual_seed(0)
    config = OwnConfig(text, tokenizer.convert_tokens_to_ids("<video>"))
    return OwnVideoLM(config).eval(), OwnProcessor(tokenizer)


def main() -> None:
    """Register the family, load the model, examine it."""
    import probe
    from probe.doctor import doctor
    from probe.doctor.table import show

    register(FAMILY)
    show(doctor(probe.load(build())))


if __name__ == "__main__":
    main()
