"""From patches of the vision tower to visual tokens of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.engine.vision_tokens import VisionTokens
    from probe.models.layout import Layout


def to_tokens(
    values: Sequence[Float[np.ndarray, "_ ..."]],
    forwards: Sequence[VisionTokens],
    labels: Sequence[str],
    layout: Layout,
    positions: Int[np.ndarray, " position"],
    owner: str,
) -> Float[Tensor, "position ..."]:
    """Values of patches as values of tokens, matched by frame, row and column.

    A token has the mean over its patches where the grid of patches is a whole multiple of that of
    tokens (mergers, pixel shuffle, average pooling), and else the bilinear interpolation with
    which LLaVA-OneVision pools its features. Tokens that the tower has in front of the patches
    have their own value where they are tokens of the prompt (the CLS of Video-LLaVA). Any other
    token without a cell (a newline) has the value of the token before it, as it counts to that
    token's frame.

    Args:
        values: of each forward of the tower, by `VisionTokens`.
        forwards: the tokens of each forward.
        labels: of each frame of all forwards.
        layout: of the prompt.
        positions: sorted, visual tokens.
        owner: who asks, for errors.

    Raises:
        ProbeError: tokens without a place in their frame, or frames that cannot be matched.
    """
    if not (layout.row >= 0).any() or (layout.visual[positions] < 0).any():
        raise ProbeError(
            f"{owner}: the tokens to score have no place in a frame (text, or the queries of a "
            "Q-Former), so patches of the vision tower cannot be matched with them"
        )
    every = np.flatnonzero(layout.visual >= 0)
    names = np.array(labels_of(layout, every))
    frames = [(n, frame) for n, tokens in enumerate(forwards) for frame in range(tokens.frames)]
    where = dict(zip(labels, frames, strict=True))
    out = np.zeros((len(layout), *values[0].shape[1:]), np.float32)
    for label in dict.fromkeys(names[np.isin(every, positions)].tolist()):
        if label not in where:
            raise ProbeError(
                f"{owner}: the vision tower saw {', '.join(dict.fromkeys(labels))} and none of "
                f"them is {label} of the prompt, so patches cannot be matched with tokens"
            )
        number, frame = where[label]
        mine, tokens = every[names == label], forwards[number]
        inside = np.flatnonzero((tokens.frame == frame) & (tokens.patch >= 0))
        front = np.flatnonzero((tokens.frame == frame) & (tokens.patch < 0))
        grid = _square(values[number][inside], tokens.row[inside], tokens.col[inside], owner)
        cells = layout.visuals[layout.visual[mine[0]]].cells
        assert cells is not None
        row, col = layout.row[mine], layout.col[mine]
        first, placed = int((row >= 0).argmax()), np.arange(len(mine))
        before = np.maximum.accumulate(np.where(row >= 0, placed, first))
        out[mine] = fold(grid, cells)[row[before], col[before]]
        if first == len(front):
            out[mine[:first]] = values[number][front]
    return torch.from_numpy(out[positions])


def fold(
    grid: Float[np.ndarray, "row col ..."], cells: tuple[int, int]
) -> Float[np.ndarray, "token_row token_col ..."]:
    """A grid of patches as a smaller grid: means of blocks, or else bilinear interpolation."""
    (rows, cols), width = grid.shape[:2], grid.shape[2:]
    if rows % cells[0] == 0 and cols % cells[1] == 0:
        blocks = grid.reshape(cells[0], rows // cells[0], cells[1], cols // cells[1], *width)
        return blocks.mean((1, 3))
    image = torch.from_numpy(grid.reshape(rows, cols, -1)).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(image, size=cells, mode="bilinear")
    return small[0].permute(1, 2, 0).reshape(*cells, *width).numpy()


def labels_of(layout: Layout, visual: np.ndarray) -> list[str]:
    """Label of the frame or image of each visual token; of the one before where it has none."""
    labels: list[str] = []
    for p in visual:
        shown = layout.visuals[layout.visual[p]]
        if layout.group[p] >= 0:
            labels.append(layout.groups[layout.group[p]])
        else:
            labels.append(labels[-1] if shown.kind == "video" and labels else shown.label)
    return labels


def _square(values: np.ndarray, row: np.ndarray, col: np.ndarray, owner: str) -> np.ndarray:
    """Patches of one frame as [row, col, ...]."""
    if (row < 0).any():
        raise ProbeError(f"{owner}: the rows and columns of the vision tower's patches are unknown")
    grid = np.full((row.max() + 1, col.max() + 1, *values.shape[1:]), np.nan, np.float32)
    grid[row, col] = values
    return grid
