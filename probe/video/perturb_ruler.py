"""Rulers along the frames of a clip: coordinates that a model can read off the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from probe.errors import ProbeError
from probe.video.clip import Clip, join

# Glyphs of 3 x 5 pixels, so that what is drawn does not depend on installed fonts.
_GLYPHS = {
    "0": "### #.# #.# #.# ###",
    "1": ".#. ##. .#. .#. ###",
    "2": "### ..# ### #.. ###",
    "3": "### ..# ### ..# ###",
    "4": "#.# #.# ### ..# ..#",
    "5": "### #.. ### ..# ###",
    "6": "### #.. ### #.# ###",
    "7": "### ..# ..# ..# ..#",
    "8": "### #.# ### #.# ###",
    "9": "### #.# ### ..# ###",
    ".": "... ... ... ... .#.",
}
_TICK = 2  # pixels of a tick, before scaling


def ruler(clip: Clip, ticks: int = 10, outside: bool = False, scale: int | None = None) -> Clip:
    """Axes from 0 to 1 over width and height of the frames, along their top and left edges.

    The training-free half of VPP-LLaVA (Tang et al. 2025, arXiv:2503.15426): an overlay of
    coordinates to which a question or an answer can refer. Labels are left out where they would
    run into each other.

    Args:
        clip: the clip.
        ticks: intervals of each axis; 10 has ticks at 0, .1, ..., 1.
        outside: the rulers are added around the frames, which grow by them and keep every pixel,
            in place of being drawn over their edges.
        scale: pixels of one dot of the labels; by default the shorter side / 224, at least 1.

    Raises:
        ProbeError: fewer than 1 tick, more than 100, or frames too small for a ruler.
    """
    height, width = clip.frames.shape[1:3]
    if not 1 <= ticks <= 100:
        raise ProbeError(f"ruler: ticks is from 1 to 100, not {ticks!r}")
    dot = max(1, round(min(height, width) / 224)) if scale is None else scale
    labels = [f"{number / ticks:.{1 if 10 % ticks == 0 else 2}f}" for number in range(ticks + 1)]
    top, left = (5 + _TICK + 2) * dot, (4 * len(labels[0]) - 1 + _TICK + 2) * dot
    if dot < 1 or (not outside and (height < 3 * top or width < 2 * left)):
        raise ProbeError(
            f"{clip.source}: frames of {height} x {width} pixels are too small for a ruler; use "
            "outside=True or a smaller scale"
        )
    grow = ((0, 0), (top, 0), (left, 0), (0, 0)) if outside else ((0, 0),) * 4
    pixels = np.pad(clip.frames, grow)
    pixels[:, :top, :left] = 255
    # Drawn on the frame, an axis runs along all of it and the left one starts below the top one.
    hidden = (0, 0) if outside else (top, left)
    pixels[:, :top, left - hidden[1] :] = _axis(width, top, labels, dot, True)
    pixels[:, top:, :left] = _axis(height, left, labels, dot, False, hidden[0])[hidden[0] :]
    note = f"rulers with {ticks} intervals {'around' if outside else 'on'} the frames"
    return replace(clip, frames=pixels, note=join(clip.note, note))


def _axis(
    length: int, depth: int, labels: list[str], dot: int, across: bool, free: int = 0
) -> UInt8[np.ndarray, "height width 3"]:
    """One ruler: ticks at its inner edge, labels beside them, none before `free`."""
    shape = (depth, length) if across else (length, depth)
    strip = np.full(shape, 255, np.uint8)
    for number, text in enumerate(labels):
        at = round(number * (length - 1) / (len(labels) - 1))
        tick = slice(max(0, at - dot // 2), at - dot // 2 + dot)
        if across:
            strip[-_TICK * dot :, tick] = 0
        else:
            strip[tick, -_TICK * dot :] = 0
        label = _label(text, dot)
        size = label.shape[1] if across else label.shape[0]
        start = min(max(0, at - size // 2), length - size)
        if start < max(0, free):
            continue
        free = start + size + dot
        place = (slice(dot, dot + label.shape[0]), slice(start, start + size))
        if not across:
            place = (slice(start, start + size), slice(dot, dot + label.shape[1]))
        strip[place][label] = 0
    return np.repeat(strip[..., None], 3, axis=2)


def _label(text: str, dot: int) -> np.ndarray:
    """True where the text has ink, [5 dots, 4 dots a letter less 1]."""
    ink = np.zeros((5, 4 * len(text) - 1), bool)
    for number, letter in enumerate(text):
        rows = _GLYPHS[letter].split()
        ink[:, 4 * number : 4 * number + 3] = [[mark == "#" for mark in row] for row in rows]
    return ink.repeat(dot, 0).repeat(dot, 1)
