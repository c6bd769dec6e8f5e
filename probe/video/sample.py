"""Which frames of a clip are taken: evenly, at a rate, or at given times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from probe.errors import ProbeError

EARLY = 5.01e-4  # seconds; Matroska rounds times to a millisecond, so a frame counts this early

Picked = tuple[Int64[np.ndarray, " picked"], str | None]


def pick(
    seconds: Float64[np.ndarray, " frame"],
    end: float,
    frames: int | None = 16,
    fps: float | None = None,
    times: Sequence[float] | np.ndarray | None = None,
) -> Picked:
    """Numbers of the frames taken, increasing and each once, and a note or None.

    Args:
        seconds: when each frame is shown.
        end: when the last frame ends.
        frames: how many, evenly; None for every frame. Not used with `fps` or `times`.
        fps: frames a second.
        times: explicit seconds.

    Raises:
        ProbeError: both `fps` and `times`, or a value that cannot be met.
    """
    if fps is not None and times is not None:
        raise ProbeError("fps and times exclude each other; give one of them")
    if times is not None:
        return at_times(seconds, end, times)
    if fps is not None:
        return at_rate(seconds, end, fps)
    if frames is None:
        return np.arange(len(seconds)), None
    return evenly(len(seconds), frames)


def evenly(count: int, frames: int) -> Picked:
    """`frames` of `count` frames: linspace(0, count - 1, frames), rounded down.

    The first and the last frame are always in (one frame: the first). This is what the authors of
    LLaVA-OneVision do. More frames than there are gives all of them, and a note.

    Raises:
        ProbeError: `frames` is not a whole number of at least 1.
    """
    if isinstance(frames, bool) or not isinstance(frames, (int, np.integer)) or frames < 1:
        raise ProbeError(f"frames must be a whole number of at least 1, not {frames!r}")
    if frames > count:
        return np.arange(count), f"{frames} frames asked, the clip has {count}: all are used"
    return np.linspace(0, count - 1, int(frames), dtype=np.int64), None


def at_rate(seconds: Float64[np.ndarray, " frame"], end: float, fps: float) -> Picked:
    """The frames on screen at first + k / fps, k = 0, 1, ..., before `end`; each once.

    Raises:
        ProbeError: `fps` is not above 0.
    """
    if not (np.isfinite(fps) and fps > 0):
        raise ProbeError(f"fps must be a number above 0, not {fps!r}")
    since = np.append(seconds, end) - seconds[0]
    # ticks before each frame; a frame is taken if a tick falls between it and the next
    before = np.ceil((since - EARLY) * fps)
    ticks = np.diff(before)
    index = np.flatnonzero(ticks > 0)
    double = int(ticks.sum()) - len(index)
    if double == 0:
        return index, None
    return index, f"fps={fps:g} asks for {double} frames a second time: each is used once"


def at_times(
    seconds: Float64[np.ndarray, " frame"], end: float, times: Sequence[float] | np.ndarray
) -> Picked:
    """The frame on screen at each time: the last that starts at or before it; each once.

    Raises:
        ProbeError: no times, or one before the first frame or at or after the end.
    """
    asked = np.sort(np.asarray(times, dtype=np.float64).reshape(-1))
    if len(asked) == 0:
        raise ProbeError("times is empty; give at least one, in seconds")
    outside = asked[~((asked >= seconds[0] - EARLY) & (asked < end))]
    if len(outside):
        raise ProbeError(
            f"no frame at {outside[0]:g} s: the clip runs from {seconds[0]:.3f} to {end:.3f} s"
        )
    index = np.unique(np.searchsorted(seconds, asked + EARLY, side="right") - 1)
    double = len(asked) - len(index)
    if double == 0:
        return index, None
    return index, f"{double} of the {len(asked)} times show a frame again: each is used once"
