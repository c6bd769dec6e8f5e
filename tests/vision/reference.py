"""Dense attention maps and layer inputs of a vision tower, made without probe's hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.vision_utils import get_vision_window_index

from probe.models.encode import Example
from probe.models.video_model import VideoModel

SEQUENCE = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "glm4v", "video_llama_3")
CLS = ("llava_next_video", "video_llava", "internvl", "instructblipvideo", "perception_lm")


def tower(model: VideoModel) -> nn.Module:
    return model.hf.get_submodule(model.family.vision)


def layers(model: VideoModel) -> Any:
    found = [m for m in tower(model).modules() if isinstance(m, nn.ModuleList)]
    return max(found, key=len)


@contextmanager
def watching(modules: list[nn.Module], take: Any) -> Iterator[list]:
    """What `take(args, kwargs, output)` gives in each forward of each module."""
    seen: list = []
    handles = [
        module.register_forward_hook(
            lambda _, args, kwargs, output: seen.append(take(args, kwargs, output)),
            with_kwargs=True,
        )
        for module in modules
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def unfused(model: VideoModel) -> Iterator[None]:
    """timm's own path without the fused function, whose weights go through a module."""
    for layer in layers(model):
        layer.attn.fused_attn = False
    try:
        yield
    finally:
        for layer in layers(model):
            layer.attn.fused_attn = True


def maps(name: str, eager: VideoModel, x: Example) -> np.ndarray:
    """[layer, head, frame, token, token] in raster order, CLS first; frames of equal size."""
    if name in SEQUENCE:
        return frames_of(whole(eager, x), x)
    if name == "perception_lm":
        modules = [layer.attn.attn_drop for layer in layers(eager)]
        with unfused(eager), watching(modules, lambda args, kwargs, output: output) as seen:
            forward(eager, x)
    else:
        modules = [attention(layer) for layer in layers(eager)]
        with watching(modules, lambda args, kwargs, output: output[1]) as seen:
            forward(eager, x)
    return torch.stack(seen).transpose(1, 2).numpy()


@torch.no_grad()
def whole(model: VideoModel, x: Example) -> np.ndarray:
    """[layer, head, token, token] over the whole sequence, by frame and then in raster order.

    In float64 from what each attention module gets: its input, the boundaries of its blocks and
    the rotary tables.
    """
    modules = [attention(layer) for layer in layers(model)]
    with watching(modules, lambda args, kwargs, output: (args, kwargs)) as seen:
        forward(model, x)
    order = raster(model, x)
    found = []
    for module, (args, kwargs) in zip(modules, seen, strict=True):
        hidden = (args[0] if args else kwargs["hidden_states"]).double()
        query, key = projections(module, hidden)
        query, key = (rotated(t, kwargs["position_embeddings"]) for t in (query, key))
        scores = query.transpose(0, 1) @ key.permute(1, 2, 0) / query.shape[-1] ** 0.5
        ends = kwargs["cu_seqlens"][1:]
        block = torch.searchsorted(ends, torch.arange(len(hidden)), right=True)
        scores[:, block[:, None] != block] = float("-inf")
        found.append(scores.softmax(-1)[:, order][:, :, order].numpy())
    return np.stack(found)


def frames_of(dense: np.ndarray, x: Example) -> np.ndarray:
    """The diagonal blocks of one clip's map, [layer, head, frame, token, token]."""
    ((groups, *_),) = x.inputs["video_grid_thw"].tolist()
    size = dense.shape[-1] // groups
    parts = [slice(size * group, size * (group + 1)) for group in range(groups)]
    return np.stack([dense[:, :, part, part] for part in parts], 2)


def raster(model: VideoModel, x: Example) -> Tensor:
    """Tokens of the clip by frame, row and column, as numbers in the tower's own order.

    The processor's order is by merged block, and by row and column inside it; windows re-order
    the blocks.
    """
    ((groups, rows, cols),) = x.inputs["video_grid_thw"].tolist()
    vision = tower(model)
    merge = int(x.inputs["video_merge_sizes"][0]) if "video_merge_sizes" in x.inputs else 2
    number = torch.arange(groups * rows * cols).reshape(groups, rows, cols)
    blocks = number.reshape(groups, rows // merge, merge, cols // merge, merge)
    blocks = blocks.permute(0, 1, 3, 2, 4).reshape(-1, merge * merge)
    if hasattr(vision, "window_size"):
        thw: Any = x.inputs["video_grid_thw"]
        blocks = blocks[
            get_vision_window_index(thw, merge, vision.window_size, vision.patch_size)[0]
        ]  # type: ignore[arg-type]
    return blocks.flatten().argsort()


def projections(module: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Query and key [token, head, channel] before rotation, in float64."""
    heads = module.num_heads

    def linear(layer: nn.Linear) -> Tensor:
        bias = None if layer.bias is None else layer.bias.double()
        return nn.functional.linear(hidden, layer.weight.double(), bias)

    if hasattr(module, "qkv"):
        query, key, _ = linear(module.qkv).reshape(len(hidden), 3, heads, -1).unbind(1)
    else:
        query, key = (
            linear(part).reshape(len(hidden), heads, -1) for part in (module.q_proj, module.k_proj)
        )
    return query, key


def rotated(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Rotation of channel pairs (c, c + half), as complex numbers."""
    half = x.shape[-1] // 2
    cos, sin = (table[:, None, :half].double() for table in tables)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.complex(cos, sin)
    return torch.cat([turned.real, turned.imag], -1)


def attention(layer: nn.Module) -> nn.Module:
    """The attention module of a layer, by its name in the families."""
    names = ("self_attn", "attn", "attention")
    return next(getattr(layer, name) for name in names if hasattr(layer, name))


def forward(model: VideoModel, x: Example) -> Any:
    with torch.no_grad():
        return model.hf(**x.inputs, use_cache=False)
