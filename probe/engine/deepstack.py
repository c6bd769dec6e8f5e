"""Deepstack: vision features that some families add again after early layers (arXiv 2406.04334).

The decoder adds them in its own loop, with a mask of the full sequence. They are taken out of its
arguments and added at the rows that are left, by the same operation, so that a shorter sequence
gets its own features and captures see what was added.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Deepstack:
    """The additions of one forward."""

    def __init__(self) -> None:
        self._features: list[Tensor] = []
        self._rows = np.zeros(0, np.int64)

    def take(self, kwargs: dict) -> dict:
        """The decoder's arguments without the additions, which are kept here."""
        features, mask = kwargs.get("deepstack_visual_embeds"), kwargs.get("visual_pos_masks")
        self._features = []
        if features is None or mask is None:
            return kwargs
        self._features = list(features)
        self._rows = mask[0].nonzero()[:, 0].cpu().numpy()
        return kwargs | {"deepstack_visual_embeds": None, "visual_pos_masks": None}

    def after(self, layer: int, x: Tensor, positions: np.ndarray) -> tuple[Tensor, Tensor] | None:
        """The residual stream after a layer with its features, and the addition by itself.

        Args:
            layer: number of the layer.
            x: [1, row, channel].
            positions: layout positions of the rows; the prompt's, as features come with it.
        """
        if layer >= len(self._features):
            return None
        inside = np.isin(self._rows, positions)
        rows = torch.as_tensor(np.searchsorted(positions, self._rows[inside]), device=x.device)
        features = self._features[layer].to(x.device, x.dtype)
        features = features[torch.as_tensor(np.flatnonzero(inside), device=x.device)]
        added = torch.zeros_like(x)
        added[:, rows] = features
        x = x.clone()
        x[:, rows] = x[:, rows] + features
        return x, added
