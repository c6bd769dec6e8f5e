"""Shapes of attention masks: which edges of a token sequence one hides or shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probe.ablate.rope_ids import frame_of

if TYPE_CHECKING:
    from probe.models.layout import Layout

# (row positions [row, 1], key positions [1, key]) -> edges [row, key] to hide, and to show.
Shape = Callable[[Tensor, Tensor], tuple[Tensor | None, Tensor | None]]


@dataclass(frozen=True)
class Places:
    """Where every layout position is, as tensors [position] on one device.

    Attributes:
        frame: number of its frame or image; -1 for text.
        visual: number of its clip or image; -1 for text.
        time: temporal group, or for text the last one before it; -1 before any and for images.
        row, col: cell; -1 for tokens without one.
        group: temporal group of video tokens; -1 for others.
        chosen: rows that a shape with a choice of queries is about.
    """

    frame: Tensor
    visual: Tensor
    time: Tensor
    row: Tensor
    col: Tensor
    group: Tensor
    chosen: Tensor

    @classmethod
    def of(cls, layout: Layout, chosen: np.ndarray, device: torch.device) -> Places:
        """Of a layout, with chosen rows by their positions."""
        frame = frame_of(layout)
        group = np.where((frame >= 0) & (layout.role != "image"), layout.group, -1)
        latest = np.maximum.accumulate(group) if len(group) else group
        time = np.where(group >= 0, group, latest)
        picked = np.isin(np.arange(len(layout)), chosen)
        cell = np.isin(layout.role, ("video", "image")) & (layout.row >= 0)
        row, col = (np.where(cell, axis, -1) for axis in (layout.row, layout.col))
        visual = np.where(frame >= 0, layout.visual, -1)
        parts = (frame, visual, time, row, col, group, picked)
        return cls(*(torch.as_tensor(part, device=device) for part in parts))

    def on(self, device: torch.device) -> Places:
        """The same on another device; itself where it is there."""
        if self.frame.device == device:
            return self
        return Places(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def neighbour(at: Places, radius: int, frames: int, replace: bool) -> Shape:
    """A visual token sees visual tokens at most `radius` rows and columns and `frames` frames
    away; with `replace` later ones among them too.
    """

    def shape(rows: Tensor, keys: Tensor) -> tuple[Tensor, Tensor | None]:
        both = (at.row[rows] >= 0) & (at.row[keys] >= 0)
        near = both & (at.visual[rows] == at.visual[keys])
        near &= (at.frame[rows] - at.frame[keys]).abs() <= frames
        near &= (at.row[rows] - at.row[keys]).abs() <= radius
        near &= (at.col[rows] - at.col[keys]).abs() <= radius
        return both & ~near, (near & (keys > rows) if replace else None)

    return shape


def frame_causal(at: Places) -> Shape:
    """A token of a frame sees the whole frame, and what is before it."""

    def shape(rows: Tensor, keys: Tensor) -> tuple[None, Tensor]:
        same = (at.frame[rows] == at.frame[keys]) & (at.frame[rows] >= 0)
        return None, same & (keys > rows)

    return shape


def blackout(at: Places) -> Shape:
    """Chosen rows see no visual column."""

    def shape(rows: Tensor, keys: Tensor) -> tuple[Tensor, None]:
        return at.chosen[rows] & ~at.chosen[keys], None

    return shape


def window(at: Places, frames: int) -> Shape:
    """Chosen rows see tokens of frames at most `frames` away from their own; a text token's own
    is the last before it.
    """

    def shape(rows: Tensor, keys: Tensor) -> tuple[Tensor, None]:
        far = (at.time[rows] - at.group[keys]).abs() > frames
        return at.chosen[rows] & (at.group[keys] >= 0) & far, None

    return shape
