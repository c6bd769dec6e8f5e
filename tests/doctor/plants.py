"""Broken adapters and models: each wrong in one way that a real one could be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import numpy as np
import torch
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2Attention,
    Qwen2Model,
    apply_rotary_pos_emb,
    repeat_kv,
)
from transformers.models.siglip.modeling_siglip import SiglipAttention

from probe.ablate import Knockout
from probe.models.family import Family
from probe.models.video_model import VideoModel
from probe.models.visual import VisualGrid
from tests import tiny


def with_family(model: VideoModel, **changes: Any) -> VideoModel:
    """The same model, described wrongly."""
    return VideoModel(model.hf, model.processor, replace(model.family, **changes), "planted")


def with_grid(family: Family, change: Callable[[VisualGrid], VisualGrid], kind: str = "") -> Family:
    """Clips and images, or one of the two, are laid out wrongly."""

    def grid(config: Any, inputs: dict, visual: Any) -> VisualGrid:
        right = family.grid(config, inputs, visual)
        return change(right) if kind in ("", visual.kind) else right

    return replace(family, grid=grid)


def rolled(grid: VisualGrid) -> VisualGrid:
    """Off by one: the newline comes first, so that every token is taken for its neighbour."""
    names = ("role", "group", "row", "col")
    return replace(grid, **{name: np.roll(getattr(grid, name), 1) for name in names})


def off_by_one(grid: VisualGrid) -> VisualGrid:
    """Off by one among the video tokens only; every role is right."""
    moved = {}
    for name in ("group", "row", "col"):
        values = getattr(grid, name).copy()
        video = np.isin(grid.role, ("video", "image"))
        values[video] = np.roll(values[video], 1)
        moved[name] = values
    return replace(grid, **moved)


def swapped(grid: VisualGrid) -> VisualGrid:
    return replace(
        grid, row=grid.col, col=grid.row, row_edges=grid.col_edges, col_edges=grid.row_edges
    )


def backwards(grid: VisualGrid) -> VisualGrid:
    """The last frame is taken for the first."""
    frames = len(grid.frames)
    return replace(grid, group=np.where(grid.group >= 0, frames - 1 - grid.group, -1))


def mirrored(grid: VisualGrid) -> VisualGrid:
    """Edges from the wrong side."""
    return replace(grid, col_edges=1 - grid.col_edges[:, ::-1])


class OwnAttention(Qwen2Attention):
    """A decoder layer that computes attention by itself."""

    def forward(self, hidden_states, position_embeddings, attention_mask=None, **kwargs):
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        q, k, v = (
            part(hidden_states).view(shape).transpose(1, 2)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
        cache = kwargs.get("past_key_values")
        if cache is not None:
            k, v = cache.update(k, v, self.layer_idx)
        k, v = (repeat_kv(part, self.num_key_value_groups) for part in (k, v))
        scores = q @ k.mT * self.scaling
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(
            1 + scores.shape[-1] - scores.shape[-2]
        )
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        return self.o_proj(mixed), weights


class OwnVisionAttention(SiglipAttention):
    """A layer of the vision tower that computes attention by itself."""

    def forward(self, hidden_states, attention_mask=None, **kwargs):
        shape = (*hidden_states.shape[:-1], self.num_heads, self.head_dim)
        q, k, v = (
            part(hidden_states).view(shape).transpose(1, 2)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        weights = (q @ k.mT * self.scale).softmax(-1)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2)), weights


class DroppedPositions(LlavaOnevisionForConditionalGeneration):
    """The outermost forward loses position_ids."""

    @wraps(LlavaOnevisionForConditionalGeneration.forward)
    def forward(self, *args, position_ids=None, **kwargs):
        return super().forward(*args, **kwargs)


class IgnoredPositions(Qwen2Model):
    """The decoder counts tokens, whatever it is given."""

    def forward(self, *args, position_ids=None, **kwargs):
        return super().forward(*args, **kwargs)


class CountingCalls(LlavaOnevisionForConditionalGeneration):
    """Leaks state: a buffer counts the calls."""

    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    @wraps(LlavaOnevisionForConditionalGeneration.forward)
    def forward(self, *args, **kwargs):
        self.calls += 1
        return super().forward(*args, **kwargs)


class KeepingStates(LlavaOnevisionForConditionalGeneration):
    """Leaks state: a list of what it computed."""

    def __init__(self, config):
        super().__init__(config)
        self.seen: list = []

    @wraps(LlavaOnevisionForConditionalGeneration.forward)
    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        self.seen.append(out.logits)
        return out


class ChangingConfig(LlavaOnevisionForConditionalGeneration):
    """Leaks state: what a call was asked for stays in the config."""

    @wraps(LlavaOnevisionForConditionalGeneration.forward)
    def forward(self, *args, **kwargs):
        self.config.text_config.last_length = len(kwargs)
        out = super().forward(*args, **kwargs)
        self.config.text_config.calls = getattr(self.config.text_config, "calls", 0) + 1
        return out


@dataclass(frozen=True)
class Nothing(Knockout):
    """Says that it fired, and cuts nothing."""

    def change(self, *_: Any) -> None:
        pass


@dataclass(frozen=True)
class NeverNeutral(Knockout):
    """What it calls neutral still cuts."""

    def neutral(self) -> Knockout:
        return replace(self, edges="frame 0 -> last")


def remade(kind: type, geometry: tiny.Geometry = tiny.EVEN) -> VideoModel:
    """A tiny model of another class with the same weights."""
    model = tiny.build(geometry)
    hf = kind._from_config(model.hf.config, attn_implementation="sdpa", dtype=torch.float32).eval()
    hf.load_state_dict(model.hf.state_dict())
    hf.generation_config = model.hf.generation_config
    return VideoModel(hf, model.processor, model.family, "planted")


def with_module(path: str, kind: type, *more: Any) -> VideoModel:
    """A tiny model with one module of another class and the same weights."""
    model = tiny.build()
    old = model.hf.get_submodule(path)
    new = kind(old.config, *more).eval()
    new.load_state_dict(old.state_dict())
    model.hf.set_submodule(path, new)
    return model
