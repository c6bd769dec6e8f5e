"""Changes to the pictures of a clip: tiles cut out of the frames, patches and frames masked."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from probe.errors import ProbeError
from probe.video.clip import Clip, join
from probe.video.perturb import flat

Cut = Literal["contiguous", "strided"]


def crop(clip: Clip, rows: int = 2, cols: int = 2, tile: int = 0, how: Cut = "contiguous") -> Clip:
    """One tile of every frame: a window of it, or a thinned view of all of it.

    The two croppers of INF-LLaVA (Ma et al. 2024, arXiv:2407.16198). A tile is 1 / rows of the
    height and 1 / cols of the width; pixels that are left over at the bottom and on the right are
    not in any tile.

    Args:
        clip: the clip.
        rows, cols: tiles of a frame; 1 x 1 leaves it as it is.
        tile: which, row by row from 0.
        how: "contiguous" windows, or "strided" (dilated): every rows-th row and cols-th column.

    Raises:
        ProbeError: no such tile, or more tiles than pixels.
    """
    if rows == cols == 1 and tile == 0:
        return clip
    cut = _tiles(clip, rows, cols, how)
    if not 0 <= tile < rows * cols:
        raise ProbeError(f"crop: no tile {tile}; there are 0 to {rows * cols - 1}")
    note = f"{how} tile {tile} of {rows} x {cols}"
    return replace(clip, frames=np.ascontiguousarray(cut[:, tile]), note=join(clip.note, note))


def tiles(clip: Clip, rows: int = 2, cols: int = 2, how: Cut = "contiguous") -> Clip:
    """All tiles of every frame one after another, as frames at the frame's own time.

    Args:
        clip: the clip.
        rows, cols, how: as in `crop`.

    Raises:
        ProbeError: more tiles than pixels.
    """
    if rows == cols == 1:
        return clip
    cut = _tiles(clip, rows, cols, how)
    count = rows * cols
    return replace(
        clip,
        frames=np.ascontiguousarray(cut.reshape(-1, *cut.shape[2:])),
        seconds=np.repeat(clip.seconds, count),
        source_frames=np.repeat(clip.source_frames, count),
        note=join(clip.note, f"{rows} x {cols} {how} tiles of every frame"),
    )


def mask(
    clip: Clip,
    share: float,
    seed: int = 0,
    size: int = 14,
    of: Literal["patches", "frames"] = "patches",
    fill: Literal["grey", "black"] = "grey",
) -> Clip:
    """Random patches, or whole frames, painted over; the visible part of ST-LLM's random masking
    (Liu et al. 2024, arXiv:2404.00308; shares from .1 to .7), which drops the tokens themselves.

    Args:
        clip: the clip.
        share: of the patches of every frame, drawn anew for each, or of the frames; rounded to
            whole ones. 0 leaves the clip as it is.
        seed: of what is masked.
        size: side of a patch in pixels.
        of: what is masked.
        fill: the colour, as in `perturb.blank`.

    Raises:
        ProbeError: a share out of [0, 1], a size below 1, another `of` or `fill`.
    """
    if not 0 <= share <= 1:
        raise ProbeError(f"mask: share is from 0 to 1, not {share!r}")
    if of not in ("patches", "frames") or size < 1:
        raise ProbeError("mask: of is 'patches' or 'frames', and size at least 1 pixel")
    level = flat(clip, fill, "mask")
    draw = np.random.default_rng(seed)
    count, height, width = clip.frames.shape[:3]
    cells = (-(-height // size), -(-width // size)) if of == "patches" else (1, 1)
    hidden = np.zeros((count, *cells), bool)
    if of == "frames":
        hidden[draw.permutation(count)[: round(share * count)]] = True
    else:
        for frame in hidden.reshape(count, -1):
            frame[draw.permutation(frame.size)[: round(share * frame.size)]] = True
    if not hidden.any():
        return clip
    y, x = np.arange(height), np.arange(width)
    if of == "patches":
        y, x = y // size, x // size
    else:
        y, x = y * 0, x * 0
    pixels = np.where(hidden[:, y][:, :, x][..., None], np.uint8(level), clip.frames)
    note = f"{share:g} of the {of} masked (seed {seed})"
    return replace(clip, frames=pixels, note=join(clip.note, note))


def _tiles(
    clip: Clip, rows: int, cols: int, how: str
) -> UInt8[np.ndarray, "time tile height width 3"]:
    time, height, width = clip.frames.shape[:3]
    if how not in ("contiguous", "strided"):
        raise ProbeError(f"crop: how is 'contiguous' or 'strided', not {how!r}")
    if not (1 <= rows <= height and 1 <= cols <= width):
        raise ProbeError(f"crop: {rows} x {cols} tiles of frames of {height} x {width} pixels")
    inner = clip.frames[:, : height // rows * rows, : width // cols * cols]
    if how == "contiguous":
        cut = inner.reshape(time, rows, height // rows, cols, width // cols, 3)
        cut = cut.transpose(0, 1, 3, 2, 4, 5)
    else:
        cut = inner.reshape(time, height // rows, rows, width // cols, cols, 3)
        cut = cut.transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(time, rows * cols, height // rows, width // cols, 3)
