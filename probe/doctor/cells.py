"""The cells of a clip's or an image's tokens, and boxes of pixels in the middle of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int, UInt8

if TYPE_CHECKING:
    from probe.models.layout import Layout
    from probe.models.visual import Visual, VisualGrid

MIDDLE = 0.2  # half the part of a cell, around its centre, that is inverted
TEXT = ("timestamp", "separator", "newline")


@dataclass(frozen=True, eq=False)
class Canvas:
    """The first clip or image of a prompt.

    Attributes:
        layout: of the prompt.
        pixels: of the clip's frames, or of the image as the only one.
    """

    layout: Layout
    pixels: UInt8[np.ndarray, "time height width 3"]

    @property
    def visual(self) -> Visual:
        """What is changed."""
        return self.layout.visuals[0]

    @property
    def grid(self) -> VisualGrid:
        """Where its tokens are."""
        assert self.visual.grid is not None
        return self.visual.grid

    @cached_property
    def mine(self) -> Bool[np.ndarray, " position"]:
        """Its own tokens."""
        return (self.layout.visual == 0) & (self.layout.role == self.visual.kind)

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Per temporal group the frames it covers; an image is one."""
        return self.layout.frames if self.visual.kind == "video" else ((0,),)

    @cached_property
    def group(self) -> Int[np.ndarray, " position"]:
        """Temporal group of each token that may see pixels, -1 for the others."""
        sees = ~np.isin(self.layout.role, TEXT) & (self.layout.visual == 0)
        known = self.layout.group if self.visual.kind == "video" else np.zeros(len(sees), int)
        return np.where(sees, known, -1)

    @cached_property
    def boxes(self) -> tuple[np.ndarray, np.ndarray]:
        """[row, 2] and [col, 2]: pixels around the centre of each cell, inside the frame."""
        found = []
        edges = self.grid.row_edges, self.grid.col_edges
        for edge, side in zip(edges, self.visual.size, strict=True):
            centre, width = edge.mean(1) * side, (edge[:, 1] - edge[:, 0]) * side
            first = np.floor(centre - MIDDLE * width).astype(int)
            last = np.maximum(np.ceil(centre + MIDDLE * width).astype(int), first + 1)
            found.append(np.clip(np.stack([first, last], 1), 0, side))
        return found[0], found[1]

    def edits(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(pixels, tokens that must change, tokens that may) of each pass."""
        count = len(self.pixels)
        for frame in sorted({0, 1, count // 2, count - 1} & set(range(count))):
            pixels = self.pixels.copy()
            pixels[frame] = 255 - pixels[frame]
            here = [number for number, frames in enumerate(self.groups) if frame in frames]
            may = np.isin(self.group, here) & (self.group >= 0)
            yield pixels, may & self._inside, may
        if self.visual.cells is None:
            return
        shape = (len(self.groups), *self.visual.cells)
        code = np.arange(np.prod(shape)).reshape(shape)
        for digit in range(max(1, int(code.max()).bit_length())):
            for wanted in (1, 0):
                chosen = (code >> digit & 1) == wanted
                if chosen.any():
                    yield self._inverted(chosen), *self._concerned(chosen)

    @cached_property
    def placed(self) -> Bool[np.ndarray, " position"]:
        """Its tokens that have a cell."""
        return self.mine & (self.group >= 0) & (self.layout.row >= 0) & (self.layout.col >= 0)

    @cached_property
    def _inside(self) -> np.ndarray:
        """Tokens that see pixels of the frame at all: not those of a padded border."""
        if self.visual.cells is None:
            return self.mine
        edges = self.grid.row_edges, self.grid.col_edges
        rows, cols = ((edge[:, 1] > 0) & (edge[:, 0] < 1) for edge in edges)
        found = np.zeros(len(self.layout), bool)
        placed = self.placed
        found[placed] = rows[self.layout.row[placed]] & cols[self.layout.col[placed]]
        return found

    def _inverted(self, chosen: np.ndarray) -> np.ndarray:
        pixels = self.pixels.copy()
        for group, row, col in np.argwhere(chosen):
            (y0, y1), (x0, x1) = self.boxes[0][row], self.boxes[1][col]
            for frame in set(self.groups[group]):
                pixels[frame, y0:y1, x0:x1] = 255 - self.pixels[frame, y0:y1, x0:x1]
        return pixels

    def _concerned(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens whose own cell is chosen, and those whose cell a chosen box touches.

        Cells of some families overlap (bilinear pooling), so that one box is seen by several.
        """
        edges = self.grid.row_edges, self.grid.col_edges
        touched = [
            (edge[:, :1] * side < box[None, :, 1]) & (edge[:, 1:] * side > box[None, :, 0])
            for edge, side, box in zip(edges, self.visual.size, self.boxes, strict=True)
        ]
        near = np.einsum("ri,cj,gij->grc", touched[0], touched[1], chosen) > 0
        placed = self.placed
        where = self.group[placed], self.layout.row[placed], self.layout.col[placed]
        must, may = np.zeros((2, len(self.layout)), bool)
        must[placed], may[placed] = chosen[where], near[where]
        empty = [box[:, 0] == box[:, 1] for box in self.boxes]
        must[placed] &= ~(empty[0][where[1]] | empty[1][where[2]])
        # A token of a frame without a place in it (a class token, a thumbnail's) may see all of it.
        there = np.isin(self.group, np.flatnonzero(chosen.any((1, 2)))) & (self.group >= 0)
        return must, may | (there & ~placed)
