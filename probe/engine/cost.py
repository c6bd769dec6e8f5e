"""What a run cost: lengths, cache sizes and multiply-accumulates, analytic, and its time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from probe.engine.session import Session
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel


@dataclass(frozen=True)
class Cost:
    """Cost of one run.

    Attributes:
        length: rows of the prompt's forward pass per layer.
        kv_length: cached positions per layer at the end.
        macs: multiply-accumulates of the decoder over the prompt, by the true count (gated MLP,
            the experts that a token uses, grouped keys and values, causal attention counted in
            full as n x n).
        macs_fastv: the same by the published convention 4nd^2 + 2n^2d + 2ndm per layer.
        macs_full, macs_fastv_full: both without any ablation.
        seconds: wall time of the forward pass or of the whole generation.
    """

    length: tuple[int, ...]
    kv_length: tuple[int, ...]
    macs: int
    macs_fastv: int
    macs_full: int
    macs_fastv_full: int
    seconds: float

    def to_json(self) -> dict:
        """Plain dict."""
        return asdict(self)


def layer_macs(n: int, width: int, mlp: int, heads: int, kv_heads: int, head_dim: int) -> int:
    """True multiply-accumulates of one decoder layer over n rows (gate, up and down in the MLP)."""
    projections = n * width * head_dim * (2 * heads + 2 * kv_heads)
    return projections + 2 * n * n * heads * head_dim + 3 * n * width * mlp


def layer_macs_fastv(n: int, width: int, mlp: int) -> int:
    """The convention of FastV and HoliTom: 4nd^2 + 2n^2d + 2ndm."""
    return 4 * n * width**2 + 2 * n**2 * width + 2 * n * width * mlp


def mlp_width(config: Any, layer: int) -> int:
    """Hidden width of a layer's MLP; of the experts that one token uses, in a mixture of them."""
    experts = getattr(config, "num_experts_per_tok", None)
    step = getattr(config, "decoder_sparse_step", 1) or 1
    dense = layer in (getattr(config, "mlp_only_layers", None) or []) or (layer + 1) % step
    if not experts or dense:
        return config.intermediate_size
    return experts * config.moe_intermediate_size


def cost(model: VideoModel, x: Example, session: Session, seconds: float) -> Cost:
    """The cost of the run that a session has just finished."""
    mlps = [mlp_width(model.hf.config.get_text_config(), n) for n in range(model.n_layers)]
    prompt = x.inputs["input_ids"].shape[1]
    length = [int(np.sum(present < prompt)) for present in session.present]
    heads = (model.n_heads, model.n_kv_heads, model.head_dim)
    every = [*zip(length, mlps, strict=True)]
    return Cost(
        length=tuple(length),
        kv_length=tuple(len(present) for present in session.present),
        macs=sum(layer_macs(n, model.width, m, *heads) for n, m in every),
        macs_fastv=sum(layer_macs_fastv(n, model.width, m) for n, m in every),
        macs_full=sum(layer_macs(prompt, model.width, m, *heads) for m in mlps),
        macs_fastv_full=sum(layer_macs_fastv(prompt, model.width, m) for m in mlps),
        seconds=seconds,
    )
