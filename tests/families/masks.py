"""Ablations by plain masks and tables in forward hooks: what the real ones are held to."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import torch

from probe.models.encode import Example
from probe.models.video_model import VideoModel

NEVER = float(torch.finfo(torch.float32).min)


@contextmanager
def masked(model: VideoModel, hidden: np.ndarray):
    """Hide keys from rows by an additive mask in every layer: hidden [layer, row, key]."""
    undo = []
    for number, layer in enumerate(model.layers):
        mask = torch.zeros(1, 1, *hidden.shape[1:])
        mask.masked_fill_(torch.as_tensor(hidden[number]), NEVER)

        def hide(module, args, kwargs, mask=mask):
            given = kwargs.get("attention_mask")
            if given is not None and given.dtype == torch.bool:
                given = torch.zeros(given.shape).masked_fill_(~given, NEVER)
            causal = torch.full(mask.shape[2:], NEVER).triu(1)
            base = causal[None, None] if given is None else given
            return args, kwargs | {"attention_mask": torch.minimum(base, mask)}

        undo.append(layer.register_forward_pre_hook(hide, with_kwargs=True))
    try:
        yield
    finally:
        for handle in undo:
            handle.remove()


@contextmanager
def unrotated(model: VideoModel):
    """Rotary tables of angle zero in every layer."""

    def still(module, args, kwargs):
        cos, sin = kwargs["position_embeddings"]
        tables = torch.ones_like(cos), torch.zeros_like(sin)
        return args, kwargs | {"position_embeddings": tables}

    undo = [layer.register_forward_pre_hook(still, with_kwargs=True) for layer in model.layers]
    try:
        yield
    finally:
        for handle in undo:
            handle.remove()


def logits(model: VideoModel, x: Example) -> np.ndarray:
    """Logits [readout, vocab] of the transformers model as it is."""
    with torch.no_grad():
        out = model.hf(**x.inputs, use_cache=False).logits[0].numpy()
    return out[x.layout.readout]


def attentions(model: VideoModel, x: Example) -> np.ndarray:
    """[layer, head, query, key]: the maps that transformers itself returns."""
    with torch.no_grad():
        out = model.hf(**x.inputs, output_attentions=True, use_cache=False)
    found = getattr(out, "language_model_outputs", out).attentions
    return torch.stack([layer[0] for layer in found]).numpy()
