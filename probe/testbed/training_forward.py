"""The decoder run on a clip and many packed questions at once.

Each pair sees the clip and itself, with the positions it would have alone behind the clip. The
modules are the model's own; only the attention is split up, to skip most keys that come later.
"""

from __future__ import annotations

import itertools
from typing import Any

from probe.testbed.training_model import Places, Recipe
from probe.testbed.training_text import Packed

ROWS = 200


def visible_keys(packed: Packed, prefix: int, device: Any) -> Any:
    """Additive mask [clip, 1, question token, key] for keys of the prefix, then of the pairs."""
    import torch

    segment = torch.from_numpy(packed.segment).to(device)
    own = segment[:, :, None] == segment[:, None, :]
    own = own.tril()
    mask = torch.zeros(*segment.shape, prefix + segment.shape[1], device=device)
    mask[:, :, prefix:].masked_fill_(~own, float("-inf"))
    return mask[:, None]


def prefix_embeddings(
    recipe: Recipe, model: Any, features: Any | None, head: tuple[int, ...], count: int
) -> Any:
    """Embeddings of the template's tokens, the clip's [clip, group, 36, width], what follows it."""
    import torch

    embed = model.get_input_embeddings()
    ids = torch.tensor(head, device=embed.weight.device)
    parts = [embed(ids).expand(count, -1, -1)]
    if features is not None:
        parts += [features.flatten(1, 2), recipe.after(model).expand(count, -1, -1)]
    return torch.cat(parts, dim=1)


def forward(
    model: Any, prefix: Any, places: Places, packed: Packed, middle: int = 3
) -> tuple[Any, Any]:
    """Run the decoder.

    Args:
        model: LLaVA-OneVision or Qwen2.5-VL.
        prefix: embeddings [clip, token, width] that all pairs of a clip follow.
        places: positions of the prefix, and where the pairs' begin.
        packed: the pairs.
        middle: a layer.

    Returns:
        The normed last hidden states of the question tokens [clip, token, width], and the hidden
        states of the prefix after layer `middle`.
    """
    import torch
    from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

    text = model.model.language_model
    device = prefix.device
    length = prefix.shape[1]
    ids = torch.from_numpy(packed.ids).to(device)
    hidden = torch.cat([prefix, text.embed_tokens(ids)], dim=1)
    later = torch.from_numpy(packed.offset).to(device) + places.after[:, None]
    later = later.expand(*places.prefix.shape[:-1], -1)
    cos, sin = text.rotary_emb(hidden, torch.cat([places.prefix, later], dim=-1))
    mask = visible_keys(packed, length, device)
    causal = torch.full((length, length), float("-inf"), device=device).triu(1)[None, None]
    cuts = [*range(0, length, ROWS), length]
    spans = list(itertools.pairwise(cuts))
    kept = None
    for number, layer in enumerate(text.layers):
        attention = layer.self_attn
        normed = layer.input_layernorm(hidden)
        heads = (*normed.shape[:-1], -1, attention.head_dim)
        query = attention.q_proj(normed).view(heads).transpose(1, 2)
        key = attention.k_proj(normed).view(heads).transpose(1, 2)
        value = attention.v_proj(normed).view(heads).transpose(1, 2)
        query, key = apply_rotary_pos_emb(query.float(), key.float(), cos, sin)
        query, key = query.to(value.dtype), key.to(value.dtype)
        rows = [
            _attend(query[:, :, a:b], key[:, :, :b], value[:, :, :b], causal[..., a:b, :b])
            for a, b in spans
        ]
        rows.append(_attend(query[:, :, length:], key, value, mask))
        mixed = torch.cat(rows, dim=2).transpose(1, 2).flatten(2)
        hidden = hidden + attention.o_proj(mixed)
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        if number == middle:
            kept = hidden[:, :length]
    return text.norm(hidden[:, length:]), kept


def _attend(query: Any, key: Any, value: Any, mask: Any) -> Any:
    """Grouped-query attention in plain matmuls: on a CPU its backward is several times faster."""
    import torch

    count, heads, rows, width = query.shape
    groups = key.shape[1]
    stacked = query.reshape(count, groups, -1, width) * width**-0.5
    scores = stacked @ key.transpose(2, 3)
    with torch.autocast(query.device.type, enabled=False):
        grid = scores.view(count, groups, heads // groups, rows, -1)
        weights = torch.softmax(grid + mask[:, :, None].to(scores.dtype), -1)
    return (weights.view_as(scores) @ value).view(count, heads, rows, width)
