"""What the model passes to a layer, indexed by the rows and keys that are in the layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from probe.errors import ProbeError


def refuse_forgetful(cache: Any, length: int, name: str) -> None:
    """A cache that drops keys by their number, not by their position, cannot lose tokens exactly.

    Args:
        cache: of the model; length: positions that it may have to hold; name: of the model.

    Raises:
        ProbeError: a layer whose window is shorter than the sequence.
    """
    for layer in getattr(cache, "layers", []):
        window = getattr(layer, "sliding_window", None)
        if getattr(layer, "is_sliding", False) and window is not None and length > window:
            raise ProbeError(
                f"{name}: layers with a sliding window of {window} keep a cache that forgets, and "
                "tokens that are dropped would shift it; use model.run, or fewer tokens than that"
            )


def shorten(kwargs: dict, forward: np.ndarray, rows: np.ndarray, keys: np.ndarray) -> dict:
    """A decoder layer's arguments for a sequence that lost tokens.

    Args:
        kwargs: the layer's keyword arguments, made for the full sequence.
        forward: positions of all rows of this forward before any reduction.
        rows: positions of the rows in this layer.
        keys: positions of the keys in this layer, rows of all steps.
    """
    index = torch.as_tensor(np.flatnonzero(np.isin(forward, rows)))
    kwargs = dict(kwargs)
    tables = kwargs.get("position_embeddings")
    if tables is not None:
        kwargs["position_embeddings"] = tuple(t[..., index.to(t.device), :] for t in tables)
    ids = kwargs.get("position_ids")
    if isinstance(ids, Tensor):
        kwargs["position_ids"] = ids[..., index.to(ids.device)]
    mask = kwargs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 4:
        # A mask made for a first layer that is itself shorter hides nothing from new tokens.
        columns = keys if mask.shape[-1] > forward[-1] else np.arange(len(keys))
        if len(forward) == 1 and mask.shape[-1] < len(keys):  # a shorter first layer than this
            return kwargs | {"attention_mask": None}
        mask = mask[:, :, index.to(mask.device)]
        kwargs["attention_mask"] = mask[..., torch.as_tensor(columns, device=mask.device)]
    return kwargs
