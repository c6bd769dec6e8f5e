"""Changes to what is shown and when: pure functions from a clip to a clip.

What each does to time: the seconds are those of the places in the clip, so a shuffled clip shows
other frames at the same times; `source_frames` move with the pictures. `drop` and `keep` take
places away, and those that stay keep their own times. Every function adds a line to the note.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from probe.errors import ProbeError
from probe.video.clip import Clip, join

Frames = int | Sequence[int] | np.ndarray


def blank(clip: Clip, fill: Literal["grey", "black"] = "grey") -> Clip:
    """Every frame one flat colour: the grey of the clip's mean brightness, or black.

    Grey is one number for the whole clip, so that no colour and no change of light remains.

    Raises:
        ProbeError: another fill.
    """
    if fill not in ("grey", "black"):
        raise ProbeError(f"blank: fill is 'grey' or 'black', not {fill!r}")
    level = round(float(clip.frames.mean())) if fill == "grey" else 0
    return replace(
        clip, frames=np.full_like(clip.frames, level), note=join(clip.note, f"frames {fill}")
    )


def noise(clip: Clip, seed: int = 0, amount: float = 1.0) -> Clip:
    """Frames mixed with uniform noise, drawn anew for each frame.

    Args:
        clip: the clip.
        seed: of the noise.
        amount: share of the noise in (0, 1]; 1 leaves nothing of the frames.

    Raises:
        ProbeError: `amount` out of range.
    """
    if not 0 < amount <= 1:
        raise ProbeError(f"noise: amount is above 0 and at most 1, not {amount!r}")
    draw = np.random.default_rng(seed)
    frames = np.empty_like(clip.frames)
    for number, frame in enumerate(clip.frames):
        grain = draw.integers(0, 256, frame.shape, dtype=np.uint8)
        frames[number] = np.rint((1 - amount) * frame + amount * grain)
    return replace(clip, frames=frames, note=join(clip.note, f"noise {amount:g} (seed {seed})"))


def shuffle(clip: Clip, seed: int = 0) -> Clip:
    """The frames in another order, never the original one; times stay with the places.

    Raises:
        ProbeError: a clip of one frame.
    """
    count = len(clip)
    if count < 2:
        raise ProbeError(f"{clip.source}: a clip of one frame cannot be shuffled")
    draw = np.random.default_rng(seed)
    order = np.arange(count)
    while (order == np.arange(count)).all():
        order = draw.permutation(count)
    return _show(clip, order, f"frames shuffled (seed {seed})")


def reverse(clip: Clip) -> Clip:
    """The frames from last to first; times stay with the places."""
    return _show(clip, np.arange(len(clip))[::-1], "frames reversed")


def freeze(clip: Clip, frame: int = 0) -> Clip:
    """One frame shown at every time.

    Raises:
        ProbeError: no such frame.
    """
    number = int(_numbers(clip, frame)[0])
    return _show(clip, np.full(len(clip), number), f"frozen at frame {number}")


def drop(clip: Clip, frames: Frames) -> Clip:
    """The clip without these frames; the others keep their times.

    Args:
        clip: the clip.
        frames: numbers from 0, in the clip.

    Raises:
        ProbeError: no such frame, or none would be left.
    """
    gone = _numbers(clip, frames)
    left = np.setdiff1d(np.arange(len(clip)), gone)
    if len(left) == 0:
        raise ProbeError(f"{clip.source}: drop would leave no frame; use blank")
    return clip.take(left, f"frames dropped: {_listed(gone)}")


def keep(clip: Clip, frames: Frames) -> Clip:
    """Only these frames, in the clip's order, each at its own time.

    Args:
        clip: the clip.
        frames: numbers from 0, in the clip.

    Raises:
        ProbeError: no such frame, or none named.
    """
    left = _numbers(clip, frames)
    if len(left) == 0:
        raise ProbeError(f"{clip.source}: keep needs at least one frame")
    return clip.take(left, f"frames kept: {_listed(left)}")


def _show(clip: Clip, order: np.ndarray, note: str) -> Clip:
    return replace(
        clip,
        frames=clip.frames[order],
        source_frames=clip.source_frames[order],
        note=join(clip.note, note),
    )


def _numbers(clip: Clip, frames: Frames) -> np.ndarray:
    asked = np.atleast_1d(np.asarray(frames))
    if asked.size and not np.issubdtype(asked.dtype, np.integer):
        raise ProbeError(f"{clip.source}: frames are named by whole numbers, not {asked.dtype}")
    numbers = np.unique(asked.astype(np.int64))
    wrong = numbers[(numbers < 0) | (numbers >= len(clip))]
    if len(wrong):
        raise ProbeError(f"{clip.source}: no frame {wrong[0]}; there are 0 to {len(clip) - 1}")
    return numbers


def _listed(numbers: np.ndarray) -> str:
    return ", ".join(map(str, numbers.tolist()))
