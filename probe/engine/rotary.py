"""Rotary tables of a run, and vectors as they were before rotation."""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor, nn

from probe.errors import ProbeError


class Rotary:
    """Tables of all positions so far: keys of past steps are unrotated too."""

    def __init__(self) -> None:
        self._tables: tuple[Tensor, Tensor] | None = None

    def grow(self, tables: tuple[Tensor, Tensor] | None, first: bool) -> None:
        """Add the tables (cos, sin) [1, row, channel] of a forward; `first` starts anew."""
        if tables is None:
            return
        cos, sin = (table[0] for table in tables)
        if not first and self._tables is not None:
            cos, sin = torch.cat([self._tables[0], cos]), torch.cat([self._tables[1], sin])
        self._tables = cos, sin

    def remove(self, module: nn.Module, x: Tensor, positions: np.ndarray) -> Tensor:
        """Vectors [head, n, channel] before rotation: the family's own rotary with -sin.

        Dividing by cos^2 + sin^2 undoes a scale in the tables (attention temperature of YaRN).
        """
        if self._tables is None:
            raise ProbeError(f"{type(module).__name__}: gets no rotary tables; nothing to remove")
        index = torch.as_tensor(positions, device=x.device)
        cos, sin = (table[index][None].float() for table in self._tables)
        rotate = sys.modules[type(module).__module__].apply_rotary_pos_emb
        raw = rotate(x[None].float(), x[None].float(), cos, -sin)[0][0]
        return raw / (cos**2 + sin**2)
