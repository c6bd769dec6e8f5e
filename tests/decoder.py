"""A plain Qwen2 decoder in float64 with dense maps: the definition that ablations are held to."""

from __future__ import annotations

import numpy as np
import torch

from probe.models.encode import Example
from probe.models.video_model import VideoModel


def embeddings(model: VideoModel, x: Example) -> torch.Tensor:
    """The merged embeddings of the untouched model."""
    seen: list[torch.Tensor] = []
    handle = model.decoder.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["inputs_embeds"][0].double()), with_kwargs=True
    )
    with torch.no_grad():
        model.hf(**x.inputs, use_cache=False)
    handle.remove()
    return seen[0]


@torch.no_grad()
def decode(
    model: VideoModel,
    x: Example,
    cut: dict[int, np.ndarray] | None = None,
    plain: dict[int, np.ndarray] | None = None,
    present: np.ndarray | None = None,
) -> np.ndarray:
    """Logits of every position.

    Args:
        model, x: weights, and inputs for the merged embeddings and position ids.
        cut: by layer, [query, key], True where no information may pass.
        plain: by layer, [query, key], True where the score is that of the unrotated vectors.
        present: [layer, position], True where a token is in a layer; no row sees another one.
    """
    h, n = embeddings(model, x), len(x.layout)
    causal = torch.ones(n, n, dtype=torch.bool).tril()
    position = x.inputs["position_ids"][0].double()
    angle = position[:, None] * model.decoder.rotary_emb.inv_freq.double()
    cos, sin = torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()

    def rotated(v: torch.Tensor) -> torch.Tensor:
        one, two = v.chunk(2, -1)
        return v * cos + torch.cat([-two, one], -1) * sin

    for number, layer in enumerate(model.layers):
        a = layer.self_attn
        normed = _norm(layer.input_layernorm, h)
        q, k, v = (_heads(part, normed, model.head_dim) for part in (a.q_proj, a.k_proj, a.v_proj))
        k, v = (t.repeat_interleave(model.n_heads // model.n_kv_heads, 0) for t in (k, v))
        scores = rotated(q) @ rotated(k).mT
        if plain is not None and number in plain:
            scores = torch.where(torch.as_tensor(plain[number]), q @ k.mT, scores)
        seen = causal.clone()
        if cut is not None and number in cut:
            seen &= ~torch.as_tensor(cut[number])
        if present is not None:
            seen &= torch.as_tensor(present[number])
        scores = (scores * model.head_dim**-0.5).masked_fill(~seen, -torch.inf)
        mixed = (scores.softmax(-1).nan_to_num() @ v).transpose(0, 1).flatten(1)
        h = h + mixed @ a.o_proj.weight.double().T
        normed = _norm(layer.post_attention_layernorm, h)
        m = layer.mlp
        gate, up = (normed @ part.weight.double().T for part in (m.gate_proj, m.up_proj))
        h = h + (torch.nn.functional.silu(gate) * up) @ m.down_proj.weight.double().T
    return (_norm(model.decoder.norm, h) @ model.head.weight.double().T).numpy()


def pairs(x: Example, source: np.ndarray, destination: np.ndarray) -> np.ndarray:
    """[query, key], True on the edges source -> destination."""
    table = np.zeros((len(x.layout), len(x.layout)), bool)
    table[np.ix_(destination, source)] = True
    return table


def _norm(norm: torch.nn.Module, h: torch.Tensor) -> torch.Tensor:
    return (
        norm.weight.double()
        * h
        * (h.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()
    )


def _heads(part: torch.nn.Linear, h: torch.Tensor, size: int) -> torch.Tensor:
    out = h @ part.weight.double().T + part.bias.double()
    return out.view(len(h), -1, size).transpose(0, 1)
