"""One clip or image of a prompt, and where its tokens sit in its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class VisualGrid:
    """Where the tokens of one clip or image sit, in the order the model receives them.

    Attributes:
        role: per token: "video", "image", or what it is instead ("newline", "cls", ...).
        group: temporal group of each token, -1 where it has none; all -1 for an image.
        row, col: cell of each token, -1 where it has none.
        frames: per temporal group, the frames it covers, numbered from 0 in this clip; () for an
            image.
        row_edges, col_edges: [row, 2] and [col, 2], the part of the frame's height and width
            (0 to 1) that a token sees before any mixing by attention; [0, 2] where tokens have no
            place in the frame (the queries of a Q-Former).
    """

    role: np.ndarray
    group: np.ndarray
    row: np.ndarray
    col: np.ndarray
    frames: tuple[tuple[int, ...], ...]
    row_edges: np.ndarray
    col_edges: np.ndarray

    @classmethod
    def raster(
        cls,
        kind: str,
        frames: Sequence[tuple[int, ...]],
        row_edges: np.ndarray,
        col_edges: np.ndarray,
    ) -> VisualGrid:
        """Cells row by row, group after group; an image is one frame without groups."""
        rows, cols = len(row_edges), len(col_edges)
        index = np.arange(max(1, len(frames)) * rows * cols)
        return cls(
            role=np.full(len(index), kind, dtype="<U16"),
            group=index // (rows * cols) if frames else np.full(len(index), -1),
            row=index % (rows * cols) // cols,
            col=index % cols,
            frames=tuple(frames),
            row_edges=row_edges,
            col_edges=col_edges,
        )


@dataclass(frozen=True, eq=False)
class Visual:
    """One clip or image of a prompt.

    Attributes:
        kind: "video" or "image".
        number: which of its kind, from 0 in the order of the prompt.
        frames: how many frames; 1 for an image.
        size: (height, width) in pixels as it was given.
        tokens: how many placeholders the processor wrote for it.
        seen: (top, bottom, left, right) of what the processor passes on, as parts of the given
            frame: a centre crop leaves edges out, padding goes below 0 and above 1.
        grid: its tokens; None before the layout is made.
        first: number of its first frame among the frames of all clips.
    """

    kind: str
    number: int
    frames: int
    size: tuple[int, int]
    tokens: int = 0
    seen: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0)
    grid: VisualGrid | None = None
    first: int = 0

    @property
    def label(self) -> str:
        """What selects it: "video 0", "image 1"."""
        return f"{self.kind} {self.number}"

    @property
    def cells(self) -> tuple[int, int] | None:
        """(rows, columns) of tokens in a frame; None where tokens have no place in it."""
        if self.grid is None or not len(self.grid.row_edges):
            return None
        return len(self.grid.row_edges), len(self.grid.col_edges)


def cells(count: int) -> np.ndarray:
    """Edges [cell, 2] of equal cells from 0 to 1."""
    edges = np.linspace(0, 1, count + 1)
    return np.stack([edges[:-1], edges[1:]], 1)
