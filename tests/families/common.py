"""What the builders of tiny models share: a byte tokenizer, random weights, registration."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast

from probe.models import register
from probe.models.family import families
from probe.models.loading import load
from probe.models.video_model import VideoModel


def tokenizer(*special: str, bos: str | None = None, **named: str) -> PreTrainedTokenizerFast:
    """One token a byte, and one for each special token.

    Args:
        special: special tokens by their text.
        bos: token put in front of every text.
        named: special tokens that a processor reads as attributes, `image_token="<image>"`.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if bos is not None:
        made.add_special_tokens([AddedToken(bos, special=True)])
        front = [(bos, made.token_to_id(bos))]
        made.post_processor = processors.TemplateProcessing(f"{bos} $A", None, front)
    words = PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|im_end|>",
        pad_token="<pad>",
        extra_special_tokens=named,
        **({} if bos is None else {"bos_token": bos}),
    )
    more: dict[str, Any] = {"additional_special_tokens": ["<|im_start|>", *special]}
    words.add_special_tokens(more, replace_extra_special_tokens=False)
    return words


def token_id(words: PreTrainedTokenizerFast, text: str) -> int:
    """The id of a special token."""
    found = words.convert_tokens_to_ids(text)
    assert isinstance(found, int) and words.convert_ids_to_tokens(found) == text
    return found


def randomise(hf: nn.Module, seed: int) -> None:
    """Large random weights everywhere: sharp attention, no bias of zero and no norm of one.

    Parameters that a family starts at zero or one would hide mistakes of those who skip them.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if parameter.dim() > 1:
                width = 1.2 / parameter[0].numel() ** 0.5
                parameter.normal_(std=width, generator=generator)
            elif name.endswith("weight"):
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                parameter.normal_(std=0.3, generator=generator)


def finish(hf: Any, processor: Any, module: str | None = None) -> VideoModel:
    """The model and its processor as a VideoModel that never stops generating by itself, and
    never generates a special token: a placeholder would ask for another clip.

    Args:
        hf, processor: objects of the real classes.
        module: module of its family in `probe.models.families`, where it is not the model type.
    """
    model_type = hf.config.model_type
    if model_type not in families():
        for family in import_module(f"probe.models.families.{module or model_type}").FAMILIES:
            register(family)
    with torch.no_grad():
        hf.get_output_embeddings().weight[processor.tokenizer.all_special_ids] = 0
    hf.generation_config.eos_token_id = None
    hf.generation_config.pad_token_id = 0
    return load((hf.eval(), processor))


def text_config(model_type: str, words: PreTrainedTokenizerFast, **more: Any) -> dict[str, Any]:
    """A decoder of four layers with grouped queries: 4 heads of 8 on 2 key heads."""
    return {
        "model_type": model_type,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(words),
        "max_position_embeddings": 4096,
        "pad_token_id": words.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": None,
        **more,
    }
