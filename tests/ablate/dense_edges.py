"""A plain Qwen2 decoder in float64 with positions and masks of each edge: the definition that
masks and rotary ablations are held to, for one and for three axes of positions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests.decoder import _heads, _norm, embeddings


@dataclass
class Layer:
    """What one layer does otherwise.

    Attributes:
        hidden, shown: [query, key] or [head, query, key], edges taken from the causal mask and
            given to it.
        scored: (table [query, key], query ids, key ids [axis, position] or None for no rotation):
            edges scored at other positions.
        ids: [axis, position] of the layer, where they are not the model's own.
        base: factor on the rotary base.
    """

    hidden: Any = None
    shown: Any = None
    scored: list[tuple[np.ndarray, Any, Any]] = field(default_factory=list)
    ids: Any = None
    base: float = 1.0


@torch.no_grad()
def decode(model: VideoModel, x: Example, layers: dict[int, Layer]) -> np.ndarray:
    """Logits of every position."""
    h, n = embeddings(model, x), len(x.layout)
    causal = torch.ones(n, n, dtype=torch.bool).tril()
    own = x.inputs["position_ids"].flatten(0, -2).double().numpy()
    for number, layer in enumerate(model.layers):
        how = layers.get(number, Layer())
        a = layer.self_attn
        normed = _norm(layer.input_layernorm, h)
        q, k, v = (_heads(part, normed, model.head_dim) for part in (a.q_proj, a.k_proj, a.v_proj))
        k, v = (t.repeat_interleave(model.n_heads // model.n_kv_heads, 0) for t in (k, v))
        ids = own if how.ids is None else how.ids
        scores = rotated(model, q, ids, how.base) @ rotated(model, k, ids, how.base).mT
        for table, query_ids, key_ids in how.scored:
            other = rotated(model, q, query_ids) @ rotated(model, k, key_ids).mT
            scores = torch.where(torch.as_tensor(table), other, scores)
        seen = causal
        if how.shown is not None:
            seen = seen | torch.as_tensor(how.shown)
        if how.hidden is not None:
            seen = seen & ~torch.as_tensor(how.hidden)
        scores = (scores * model.head_dim**-0.5).masked_fill(~seen, -torch.inf)
        mixed = (scores.softmax(-1).nan_to_num() @ v).transpose(0, 1).flatten(1)
        h = h + mixed @ a.o_proj.weight.double().T
        normed = _norm(layer.post_attention_layernorm, h)
        m = layer.mlp
        gate, up = (normed @ part.weight.double().T for part in (m.gate_proj, m.up_proj))
        h = h + (torch.nn.functional.silu(gate) * up) @ m.down_proj.weight.double().T
    return (_norm(model.decoder.norm, h) @ model.head.weight.double().T).numpy()


def rotated(model: VideoModel, v: torch.Tensor, ids: Any, base: float = 1.0) -> torch.Tensor:
    """Vectors [head, position, channel] at position ids [axis, position]; None for no rotation."""
    if ids is None:
        return v
    angle = angles(model, np.asarray(ids, float), base)
    cos, sin = (torch.cat([part, part], -1) for part in (angle.cos(), angle.sin()))
    one, two = v.chunk(2, -1)
    return v * cos + torch.cat([-two, one], -1) * sin


def angles(model: VideoModel, ids: np.ndarray, base: float = 1.0) -> torch.Tensor:
    """[position, channel / 2]: by hand, from the config; sections of channels for three axes."""
    config = model.hf.config.get_text_config().rope_parameters
    pairs = model.head_dim // 2
    frequency = (config["rope_theta"] * base) ** (-np.arange(pairs) / pairs)
    if len(ids) == 1:
        return torch.as_tensor(ids[0][:, None] * frequency)
    axis = np.repeat([0, 1, 2], config["mrope_section"])
    if config.get("mrope_interleaved"):
        _, row, col = config["mrope_section"]
        axis = np.zeros(pairs, int)
        axis[1 : 3 * row : 3], axis[2 : 3 * col : 3] = 1, 2
    return torch.as_tensor(ids[axis].T * frequency)
