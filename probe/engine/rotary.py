"""Rotary tables of a run, and vectors as they were before rotation."""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor, nn

from probe.errors import ProbeError

Tables = tuple[Tensor, Tensor]


class Rotary:
    """Tables of all positions so far: keys of past steps are unrotated too.

    Most families share one table among all layers; where layers differ in kind, each kind has its
    own.
    """

    def __init__(self) -> None:
        self._tables: dict[int, list[Tables]] = {}
        self._given: dict[int, Tables] = {}

    def grow(self, layer: int, tables: Tables | None, first: bool) -> None:
        """Add a layer's tables (cos, sin) [1, row, channel] of a forward; `first` starts anew."""
        if tables is None:
            return
        if first or layer not in self._tables:
            self._tables[layer] = []
        self._tables[layer].append(tables)

    def of(self, layer: int) -> Tables:
        """A layer's tables (cos, sin) [row, channel] of all positions."""
        if layer not in self._tables:
            raise ProbeError(f"layer {layer} gets no rotary tables; there are no rotary positions")
        if len(self._tables[layer]) > 1:
            cos, sin = (
                torch.cat(parts, dim=-2) for parts in zip(*self._tables[layer], strict=True)
            )
            self._tables[layer] = [(cos, sin)]
        cos, sin = self._tables[layer][0]
        return cos[0], sin[0]

    def remove(self, layer: int, module: nn.Module, x: Tensor, positions: np.ndarray) -> Tensor:
        """Vectors [head, n, channel] before rotation: the family's own rotary with -sin.

        Dividing by cos^2 + sin^2 undoes a scale in the tables (attention temperature of YaRN);
        channels that a partial rotary leaves alone stay as they are.
        """
        tables = self.of(layer)
        index = torch.as_tensor(positions, device=tables[0].device)
        cos, sin = (table[index][None].float().to(x.device) for table in tables)
        rotate = sys.modules[type(module).__module__].apply_rotary_pos_emb
        raw = rotate(x[None].float(), x[None].float(), cos, -sin)[0][0]
        scale = (cos.square() + sin.square()).mean(-1)[0, :, None]
        channels = min(cos.shape[-1], raw.shape[-1])
        return torch.cat([raw[..., :channels] / scale, raw[..., channels:]], dim=-1)
