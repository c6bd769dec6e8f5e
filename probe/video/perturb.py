"""Changes to what is shown and when: pure functions from a clip to a clip.

What each does to time: the seconds are those of the places in the clip, so a shuffled clip shows
other frames at the same times; `source_frames` move with the pictures. `drop` and `keep` take
places away, and those that stay keep their own times. Every function adds a line to the note, and
returns the clip itself where its arguments ask for no change.

Drop, shuffle and reverse have a magnitude, as TEMPLE (Li et al. 2025, arXiv:2503.16929) has it:
the clip in about so many chunks, which are dropped but for one in `magnitude`, or moved whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from probe.errors import ProbeError
from probe.video.clip import Clip, join

Frames = int | Sequence[int] | np.ndarray


def blank(
    clip: Clip, fill: Literal["grey", "black"] = "grey", frames: Frames | None = None
) -> Clip:
    """Frames of one flat colour: the grey of the clip's mean brightness, or black.

    Grey is one number for the whole clip, so that no colour and no change of light remains.

    Args:
        clip: the clip.
        fill: the colour.
        frames: which, numbers from 0; all by default.

    Raises:
        ProbeError: another fill, or no such frame.
    """
    which = _all_or(clip, frames)
    if not len(which):
        return clip
    pixels = clip.frames.copy()
    pixels[which] = flat(clip, fill, "blank")
    named = "" if frames is None else f": {_listed(which)}"
    return replace(clip, frames=pixels, note=join(clip.note, f"frames {fill}{named}"))


def noise(clip: Clip, seed: int = 0, amount: float = 1.0, frames: Frames | None = None) -> Clip:
    """Frames mixed with uniform noise, drawn anew for each frame.

    Args:
        clip: the clip.
        seed: of the noise.
        amount: share of the noise in (0, 1]; 1 leaves nothing of the frames.
        frames: which, numbers from 0; all by default. A frame has the same noise either way.

    Raises:
        ProbeError: `amount` out of range, or no such frame.
    """
    if not 0 < amount <= 1:
        raise ProbeError(f"noise: amount is above 0 and at most 1, not {amount!r}")
    which = _all_or(clip, frames)
    if not len(which):
        return clip
    draw = np.random.default_rng(seed)
    pixels = clip.frames.copy()
    for number, frame in enumerate(clip.frames):
        grain = draw.integers(0, 256, frame.shape, dtype=np.uint8)
        if number in which:
            pixels[number] = np.rint((1 - amount) * frame + amount * grain)
    named = "" if frames is None else f" in frames {_listed(which)}"
    return replace(
        clip, frames=pixels, note=join(clip.note, f"noise {amount:g}{named} (seed {seed})")
    )


def shuffle(clip: Clip, seed: int = 0, magnitude: int | None = None, unit: int = 1) -> Clip:
    """The frames in another order, never the original one; times stay with the places.

    Args:
        clip: the clip.
        seed: of the order.
        magnitude: chunks of frames are moved, see `chunks`; None moves every frame alone.
        unit: frames that stay together in any case.

    Raises:
        ProbeError: a clip of one frame, or a magnitude below 1.
    """
    if len(clip) < 2:
        raise ProbeError(f"{clip.source}: a clip of one frame cannot be shuffled")
    parts = chunks(len(clip), magnitude, unit)
    if len(parts) == 1:
        return clip
    draw = np.random.default_rng(seed)
    order = np.arange(len(parts))
    while (order == np.arange(len(parts))).all():
        order = draw.permutation(len(parts))
    moved = np.concatenate([parts[number] for number in order])
    return _show(clip, moved, f"frames shuffled{_in(parts)} (seed {seed})")


def reverse(clip: Clip, magnitude: int | None = None, unit: int = 1) -> Clip:
    """The frames from last to first; times stay with the places.

    Args:
        clip: the clip.
        magnitude: chunks from last to first, the order inside each kept, see `chunks`; None for
            every frame alone. Twice is the identity where the chunks are equally long.
        unit: frames that stay together in any case.

    Raises:
        ProbeError: a magnitude below 1.
    """
    parts = chunks(len(clip), magnitude, unit)
    if len(parts) == 1:
        return clip
    return _show(clip, np.concatenate(parts[::-1]), f"frames reversed{_in(parts)}")


def freeze(clip: Clip, frame: int = 0) -> Clip:
    """One frame shown at every time.

    Raises:
        ProbeError: no such frame.
    """
    number = int(_numbers(clip, frame)[0])
    if len(clip) == 1:
        return clip
    return _show(clip, np.full(len(clip), number), f"frozen at frame {number}")


def drop(
    clip: Clip,
    frames: Frames | None = None,
    *,
    magnitude: int | None = None,
    unit: int = 1,
    seed: int = 0,
) -> Clip:
    """The clip without these frames; the others keep their times.

    Args:
        clip: the clip.
        frames: numbers from 0, in the clip.
        magnitude: in place of frames: one in `magnitude` of the units stays, rounded down and at
            least one, drawn at random.
        unit: frames of a unit.
        seed: of what is dropped with a magnitude.

    Raises:
        ProbeError: no such frame, none would be left, or not one of frames and magnitude.
    """
    if (frames is None) == (magnitude is None):
        raise ProbeError(f"{clip.source}: drop takes frames or a magnitude")
    gone = _numbers(clip, frames) if frames is not None else _drawn(clip, magnitude, unit, seed)
    left = np.setdiff1d(np.arange(len(clip)), gone)
    if len(gone) == 0:
        return clip
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
    if len(left) == len(clip):
        return clip
    return clip.take(left, f"frames kept: {_listed(left)}")


def chunks(count: int, magnitude: int | None, unit: int = 1) -> list[np.ndarray]:
    """Numbers of the frames of each chunk, in order.

    As in TEMPLE's code a chunk has floor(units / magnitude) units, so there are more chunks than
    `magnitude` where it does not divide, and the last may be shorter.

    Args:
        count: frames of the clip.
        magnitude: None for every unit alone.
        unit: frames of a unit; TEMPLE's has 2.

    Raises:
        ProbeError: a magnitude or a unit below 1.
    """
    for name, value in (("magnitude", magnitude), ("unit", unit)):
        if value is not None and (not isinstance(value, int | np.integer) or value < 1):
            raise ProbeError(f"{name} is a whole number of at least 1, not {value!r}")
    units = -(-count // unit)
    size = unit * (1 if magnitude is None else max(1, units // magnitude))
    return [np.arange(first, min(first + size, count)) for first in range(0, count, size)]


def flat(clip: Clip, fill: str, what: str) -> int:
    """The brightness of a flat frame: the mean of the clip, or 0.

    Raises:
        ProbeError: another fill, for `what`.
    """
    if fill not in ("grey", "black"):
        raise ProbeError(f"{what}: fill is 'grey' or 'black', not {fill!r}")
    return round(float(clip.frames.mean())) if fill == "grey" else 0


def _drawn(clip: Clip, magnitude: int | None, unit: int, seed: int) -> np.ndarray:
    """Frames of the units that a magnitude drops."""
    if magnitude is None or magnitude < 1:
        raise ProbeError(f"magnitude is a whole number of at least 1, not {magnitude!r}")
    units = chunks(len(clip), None, unit)
    stay = max(1, len(units) // magnitude)
    gone = np.random.default_rng(seed).permutation(len(units))[stay:]
    return np.concatenate([np.zeros(0, np.int64), *(units[number] for number in np.sort(gone))])


def _in(parts: list[np.ndarray]) -> str:
    return "" if len(parts[0]) == 1 else f" in chunks of {len(parts[0])}"


def _all_or(clip: Clip, frames: Frames | None) -> np.ndarray:
    return np.arange(len(clip)) if frames is None else _numbers(clip, frames)


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
