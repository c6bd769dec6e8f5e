"""Which layout positions the rows and keys of every layer are, forward after forward."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from probe.ablate.reduction.weights import Weights


class Rows:
    """Bookkeeping of one session; every number is a layout position.

    Attributes:
        step: number of the forward; 0 is the prompt.
        first: rows of this forward before any reduction.
        positions: per layer, the rows of this forward.
        present: per layer, the keys in it: rows of all forwards that are still there.
        mass: [position], how many original tokens each stands for.
        segment, piece: [position], those that the last reduction put each token in.
        numbers: per layer, position ids [axis.., 1, position] that a reduction gave anew; None
            where the model's own hold.
    """

    def __init__(self, layers: int, length: int) -> None:
        self.layers, self.step, self.count = layers, -1, 0
        self.mass = np.ones(length)
        self.segment, self.piece = np.zeros((2, length), np.int64)
        self.first = np.zeros(0, np.int64)
        self.positions: list[np.ndarray] = []
        self.present = [np.zeros(0, np.int64)] * layers
        self.numbers: list[Tensor | None] = [None] * layers

    def begin(self, count: int, anew: bool) -> None:
        """A forward over `count` rows starts; `anew` with an empty cache."""
        if anew:
            self.step, self.count = -1, 0
            self.present = [np.zeros(0, np.int64)] * self.layers
            self.numbers = [None] * self.layers
            self.mass[:], self.segment[:], self.piece[:] = 1, 0, 0
        self.step += 1
        self.first = np.arange(self.count, self.count + count)
        self.count += count
        self.positions = [self.first] * self.layers

    def shorten(self, layer: int, x: Tensor, w: Weights) -> Tensor:
        """The stream [1, row, channel] that a reduction leaves; its anchors go on from here."""
        left = self.positions[layer][w.anchor]
        self.positions[layer:] = [left] * (self.layers - layer)
        return w.apply(x[0])[None]

    def enter(self, layer: int) -> None:
        """The rows of this forward become keys of the layer."""
        self.present[layer] = np.concatenate([self.present[layer], self.positions[layer]])

    def complete(self, layer: int) -> bool:
        """Whether every row so far is a key of the layer."""
        return len(self.present[layer]) == self.count

    def evict(self, cache: Any, kept: dict[int, np.ndarray]) -> None:
        """Remove keys from the cache of some layers."""
        for layer, positions in kept.items():
            inside = np.isin(self.present[layer], positions)
            if inside.all():
                continue
            one = cache.layers[layer]
            index = torch.as_tensor(np.flatnonzero(inside), device=one.keys.device)
            one.keys, one.values = one.keys[:, :, index], one.values[:, :, index]
            self.present[layer] = self.present[layer][inside]
