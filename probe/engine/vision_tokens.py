"""What the tokens of a vision tower are: which frame, which row and column, which is CLS."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.models.layout import Layout


@dataclass(frozen=True, eq=False)
class VisionTokens:
    """Tokens of one forward of a vision tower, by frame and then in raster order.

    Attributes:
        frame: frame of each token, from 0 in this forward; a frame is a temporal group where the
            tower merges frames, and a tile where an image is cut up.
        patch: number of each token among the patches of its frame; negative for tokens in front
            of the patches (CLS is the first of them).
        row, col: cell of each token, -1 where it has none or it is not known.
        order: number that each token has in the tower's own order.
    """

    frame: Int[np.ndarray, " token"]
    patch: Int[np.ndarray, " token"]
    row: Int[np.ndarray, " token"]
    col: Int[np.ndarray, " token"]
    order: Int[np.ndarray, " token"]

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def frames(self) -> int:
        """Number of frames."""
        return int(self.frame[-1]) + 1

    @property
    def patches(self) -> int:
        """Number of patches of the largest frame."""
        return int(self.patch.max()) + 1

    @property
    def prefix(self) -> int:
        """Number of tokens in front of the patches of a frame; the first of them is CLS."""
        return max(0, -int(self.patch.min()))

    @cached_property
    def place(self) -> Int[np.ndarray, " token"]:
        """Number here of each token of the tower's own order: the inverse of `order`."""
        return np.argsort(self.order)

    @cached_property
    def plain(self) -> bool:
        """True where the tower's own order is this one."""
        return bool((self.order == np.arange(len(self))).all())

    @property
    def whole(self) -> VisionTokens:
        """The same with tokens in front of the patches numbered as the first patches."""
        return replace(self, patch=self.patch + self.prefix)

    def paint(self, values: Float[np.ndarray, "*any token"]) -> Float[np.ndarray, "*any f patch"]:
        """Values of the patches as [..., frame, patch]; NaN where a frame has fewer patches."""
        full = np.full((*values.shape[:-1], self.frames, self.patches), np.nan, np.float32)
        inside = self.patch >= 0
        full[..., self.frame[inside], self.patch[inside]] = values[..., inside]
        return full


def batch(frames: int, count: int, grid: tuple[int, int] | None) -> VisionTokens:
    """Tokens of a tower that takes frames as a batch, in raster order after a CLS.

    Args:
        frames: number of frames.
        count: tokens of a frame.
        grid: (rows, columns) of patches; None where it is not known.
    """
    known = grid is not None and grid[0] * grid[1] <= count
    rows, columns = grid if grid is not None and known else (count, 1)
    patch = np.arange(count) - (count - rows * columns)
    cell = patch >= 0 if known else np.zeros(count, bool)
    return VisionTokens(
        frame=np.repeat(np.arange(frames), count),
        patch=np.tile(patch, frames),
        row=np.tile(np.where(cell, patch // columns, -1), frames),
        col=np.tile(np.where(cell, patch % columns, -1), frames),
        order=np.arange(frames * count),
    )


def packed(
    grid_thw: Int[np.ndarray, "visual 3"], row: Int[np.ndarray, " n"], col: Int[np.ndarray, " n"]
) -> VisionTokens:
    """Tokens of a tower that takes all frames as one sequence.

    Args:
        grid_thw: temporal groups, rows and columns of each clip or image.
        row, col: cell of each token in the tower's own order, in which frames follow each other.

    Raises:
        ProbeError: the cells of a frame are not its rows times its columns.
    """
    sizes = np.repeat(grid_thw[:, 1] * grid_thw[:, 2], grid_thw[:, 0])
    width = np.repeat(np.repeat(grid_thw[:, 2], grid_thw[:, 0]), sizes)
    frame = np.repeat(np.arange(len(sizes)), sizes)
    if len(frame) != len(row):
        raise ProbeError(
            f"vision tower: {len(row)} tokens where grid_thw says {len(frame)}; "
            "captures of this tower would name the wrong patches"
        )
    first = np.cumsum(sizes) - sizes
    patch = row * width + col
    order = np.argsort(first[frame] + patch, kind="stable")
    raster = np.arange(len(frame)) - np.repeat(first, sizes)
    if not np.array_equal(patch[order], raster):
        raise ProbeError(
            "vision tower: the rows and columns of its tokens do not fill each frame once; "
            "captures of this tower would name the wrong patches"
        )
    return VisionTokens(frame=frame, patch=raster, row=row[order], col=col[order], order=order)


def merged(
    tokens: VisionTokens, count: int, sequence: bool, cells: Collection[tuple[int, int]]
) -> VisionTokens:
    """Tokens at a projector: neighbours may be merged, CLS dropped, or queries put in their place.

    Args:
        tokens: in the tower.
        count: how many there are at the projector.
        sequence: True where the tower works on one sequence, in whose order neighbours merge.
        cells: (rows, columns) of the decoder's tokens in a frame of the clips and images; empty
            where they have no place in it (the queries of a Q-Former).

    Returns:
        The tokens; all in one frame where their number is no multiple of the frames (the tiles of
        an image may have been put together).
    """
    if count == len(tokens) and cells:
        return tokens
    if sequence and cells and len(tokens) % count == 0:
        return _blocks(tokens, len(tokens) // count)
    each, left = divmod(count, tokens.frames)
    if left:
        return batch(1, count, None)
    rows, columns = int(tokens.row.max()) + 1, int(tokens.col.max()) + 1
    side = round(max(rows * columns / each, 1) ** 0.5)
    even = cells and rows % side == 0 and columns % side == 0
    known = [(rows // side, columns // side)] if even else []
    grids = [grid for grid in (*known, *cells) if grid[0] * grid[1] == each]
    return batch(tokens.frames, each, grids[0] if grids else None)


def _blocks(tokens: VisionTokens, size: int) -> VisionTokens:
    """Each run of `size` tokens in the tower's own order is one, as in the Qwen-VL mergers."""
    side = round(size**0.5)
    own = tokens.place
    frame, row, col = (
        part[own].reshape(-1, size) for part in (tokens.frame, tokens.row, tokens.col)
    )
    row, col = row.min(1) // side, col.min(1) // side
    order = np.lexsort((col, row, frame[:, 0]))
    frame = frame[order, 0]
    first = np.searchsorted(frame, np.arange(frame[-1] + 1))
    patch = np.arange(len(frame)) - first[frame]
    return VisionTokens(frame=frame, patch=patch, row=row[order], col=col[order], order=order)


def frame_labels(layout: Layout, counts: Sequence[int]) -> list[str]:
    """A label for each frame of each forward of the tower.

    Labels are those of the layout ("frame 3", "frames 2-3", "image 0"), which select the same
    frame in the decoder. Towers run once on everything, or on images first and then on clips.
    The tiles of an image are "image 0 tile 1", or "tile 1" where it is not known of which image.

    Args:
        layout: of the prompt.
        counts: frames of each forward.
    """
    by_visual = _by_visual(layout)
    if len(counts) > 1:
        images = [visual.kind != "video" for visual in layout.visuals]
        by_visual = [by_visual[i] for i in np.argsort(~np.array(images), kind="stable")]
    known = [label for labels in by_visual for label in labels]
    if sum(counts) == len(known):
        return known
    if sum(counts) == len(layout.groups):  # images have a tower of their own
        return list(layout.groups)
    if len(counts) > 1 and counts[-1] == len(layout.groups):
        images = [visual.label for visual in layout.visuals if visual.kind != "video"]
        of = images[0] if len(images) == 1 else ""
        return [*_tiles(of, sum(counts[:-1])), *layout.groups]
    if sum(counts) == 1:
        return ["all frames"]
    shares = _shares(layout, sum(counts)) if len(counts) == 1 else []
    if not shares:
        return _tiles("", sum(counts))
    return [
        label
        for visual, labels, share in zip(layout.visuals, by_visual, shares, strict=True)
        for label in (labels if share == len(labels) else _tiles(visual.label, share))
    ]


def _by_visual(layout: Layout) -> list[list[str]]:
    clips = iter(layout.groups)
    return [
        [next(clips) for _ in visual.grid.frames]
        if visual.kind == "video" and visual.grid is not None
        else [visual.label]
        for visual in layout.visuals
    ]


def _shares(layout: Layout, frames: int) -> list[int]:
    """Frames of each clip and image, where every frame gives equally many tokens; else none."""
    seen = np.isin(layout.role, ("video", "image"))
    tokens = [int((seen & (layout.visual == n)).sum()) for n in range(len(layout.visuals))]
    each, left = divmod(sum(tokens), frames)
    if left or not each or any(count % each for count in tokens):
        return []
    return [count // each for count in tokens]


def _tiles(of: str, count: int) -> list[str]:
    return [f"{of} tile {number}".strip() for number in range(count)]
