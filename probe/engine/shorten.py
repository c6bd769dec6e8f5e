"""What the model passes to a layer, indexed by the rows and keys that are in the layer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


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
        mask = mask[:, :, index.to(mask.device)]
        kwargs["attention_mask"] = mask[..., torch.as_tensor(columns, device=mask.device)]
    return kwargs
