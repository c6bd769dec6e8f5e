"""Vision towers without attention between tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from probe.models.video_model import VideoModel


@contextmanager
def without_mixing(model: VideoModel) -> Iterator[None]:
    """The attention of all layers outside the decoder adds nothing while this is on.

    A model may have a tower for clips and one for images.
    """
    handles = [module.register_forward_hook(_zero) for module in attentions(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def attentions(model: VideoModel) -> list[nn.Module]:
    """The innermost attention modules of layers (what stands in module lists) on the vision side;
    attention that pools several patches into one token is in no such list.
    """
    decoder = set(model.decoder.modules())
    inside = {
        module
        for layers in model.hf.modules()
        if isinstance(layers, nn.ModuleList | nn.Sequential) and layers not in decoder
        for module in layers.modules()
        if _is_attention(module)
    }
    found = [module for module in model.hf.modules() if module in inside]
    return [m for m in found if not any(_is_attention(c) for c in m.modules() if c is not m)]


def _is_attention(module: nn.Module) -> bool:
    name = type(module).__name__
    return "Attention" in name and "Pool" not in name


def _zero(module: nn.Module, args: tuple, output: Any) -> Any:
    if isinstance(output, tuple):
        return (torch.zeros_like(output[0]), *output[1:])
    return torch.zeros_like(output)
