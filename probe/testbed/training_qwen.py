"""The recipe of testbed/qwen: two frames in a token, positions on three axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from probe.testbed.architecture import PATCH, SIZE
from probe.testbed.training_model import FPS, Places, grouped
from probe.testbed.training_onevision import OneVision

SIDE = SIZE // PATCH


class Qwen:
    """Qwen2.5-VL: 36 tokens for two frames; its decoder starts from testbed/onevision's."""

    name = "qwen"
    span = 2
    video = "<|video_pad|>"
    weights: Mapping[str, float] = MappingProxyType(
        {"shape": 3.0, "way": 0.5, "move": 0.5, "like": 0.15}
    )

    def build(self, seed: int) -> tuple[Any, Any]:
        """The model with a decoder that can talk but not see, and its processor."""
        from probe.testbed import architecture_qwen as architecture
        from probe.testbed.tokenizer import build_tokenizer

        tokenizer = build_tokenizer(architecture.SPECIAL)
        model = architecture.build_model(tokenizer, seed)
        architecture.take_decoder(model, teacher())
        return model, architecture.build_processor(tokenizer)

    def vision(self, model: Any) -> Sequence[Any]:
        """The tower with its merger."""
        return (model.model.visual,)

    def tokens(self, model: Any, images: Any) -> Any:
        """What the tower makes of groups of two frames: [group, 36, width].

        The modules are the model's own; all groups go through each at once, where the model
        takes windows one by one.
        """
        visual = model.model.visual
        patches, sides = patchify(images, visual)
        hidden = visual.patch_embed.proj.weight.flatten(1)
        hidden = (patches @ hidden.T).view(len(images), -1, len(hidden))
        order, count, cos, sin = _windows(visual, sides, hidden.device)
        unit = visual.spatial_merge_unit
        hidden = hidden.unflatten(1, (-1, unit))[:, order].flatten(1, 2)
        for number, block in enumerate(visual.blocks):
            parts = 1 if number in visual.fullatt_block_indexes else count
            normed = block.norm1(hidden)
            hidden = hidden + _attend(block.attn, normed, cos, sin, parts)
            hidden = hidden + block.mlp(block.norm2(hidden))
        merged = visual.merger(hidden).view(len(images), -1, visual.config.out_hidden_size)
        return merged[:, order.argsort()]

    def after(self, model: Any) -> Any:
        """Nothing: the token that ends the clip is part of the text."""
        return model.get_input_embeddings().weight[:0]

    def places(self, model: Any, head: int, times: np.ndarray | None, count: int) -> Places:
        """The text one after the other, the clip by seconds, row and column."""
        import torch

        device = model.device
        before = torch.arange(head, device=device).expand(3, count, -1)
        if times is None:
            return Places(before, torch.full((count,), head, device=device))
        vision = model.config.vision_config
        groups = grouped(times, self.span).shape[1]
        clips = [
            model.model.get_vision_position_ids(
                head,
                torch.tensor([groups, SIDE, SIDE]),
                spatial_merge_size=vision.spatial_merge_size,
                time_interval=vision.tokens_per_second * seconds_per_group(row, self.span),
            )
            for row in times
        ]
        prefix = torch.cat([before, torch.stack(clips, 1).to(device)], 2)
        return Places(prefix, torch.full((count,), head + SIDE // 2, device=device))


def teacher() -> Any:
    """The model testbed/onevision, in float32."""
    import torch
    from transformers import LlavaOnevisionForConditionalGeneration

    from probe.testbed import checkpoint

    folder = checkpoint("onevision")
    return LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)


class Teacher:
    """Tokens of testbed/onevision for groups of frames: the mean over a group's frames.

    Its tokens carry where a cell is in the frame, which those of a tower with relative positions
    cannot; the error that they are drawn by has a floor.
    """

    def __init__(self, device: Any) -> None:
        self.model, self.recipe = teacher().to(device), OneVision()

    def __call__(self, images: Any) -> Any:
        """Tokens [group, 36, width] of groups [group, span, 3, height, width]."""
        import torch

        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16):
            found = self.recipe.tokens(self.model, images.flatten(0, 1)[:, None])
        return found.float().unflatten(0, images.shape[:2]).mean(1)


def seconds_per_group(times: np.ndarray, span: int) -> Any:
    """As the processor has it: the seconds of `span` frames at the clip's mean rate, float32.

    The rate goes through a clock of milliseconds, as it does when a file is read.
    """
    import torch

    lasts = (int(times[-1]) - int(times[0])) / FPS
    step = lasts / max(1, len(times) - 1) or 1.0
    return torch.tensor(span * round(step * len(times) * 1000) / 1000 / len(times))


def patchify(images: Any, visual: Any) -> tuple[Any, tuple[int, int]]:
    """Patches [group, patch, values] in the processor's order, and rows and columns of them."""
    size, merge = visual.patch_size, visual.spatial_merge_size
    count, span, channels, height, width = images.shape
    rows, columns = height // size, width // size
    grid = images.view(
        count, span, channels, rows // merge, merge, size, columns // merge, merge, size
    )
    grid = grid.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return grid.reshape(count, rows * columns, -1), (rows, columns)


def _windows(visual: Any, sides: tuple[int, int], device: Any) -> tuple[Any, int, Any, Any]:
    """Order of the merged tokens by window, windows in a group, and rotary tables so ordered."""
    import torch
    from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

    grid = torch.tensor([[1, *sides]])
    order, starts = get_vision_window_index(
        grid, visual.spatial_merge_size, visual.window_size, visual.patch_size
    )
    places = get_vision_position_ids(grid, visual.spatial_merge_size).to(device)
    tables = visual.rotary_pos_emb(places.new_zeros(1, dtype=torch.float32), places)
    unit = visual.spatial_merge_unit
    cos, sin = (part.unflatten(0, (-1, unit))[order].flatten(0, 1) for part in tables)
    return order.to(device), len(starts) - 1, cos, sin


def _attend(attention: Any, hidden: Any, cos: Any, sin: Any, parts: int) -> Any:
    """Attention inside each of `parts` equal windows of every group, in plain matmuls."""
    import torch
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

    count, length, width = hidden.shape
    query, key, value = (
        attention.qkv(hidden).view(count, length, 3, attention.num_heads, -1).unbind(2)
    )
    query, key = apply_rotary_pos_emb_vision(query, key, cos, sin)
    query, key, value = (
        part.reshape(count * parts, length // parts, attention.num_heads, -1).transpose(1, 2)
        for part in (query, key, value)
    )
    scores = (query * attention.scaling) @ key.transpose(2, 3)
    mixed = torch.softmax(scores.float(), -1).to(value.dtype) @ value
    return attention.proj(mixed.transpose(1, 2).reshape(count, length, width))
