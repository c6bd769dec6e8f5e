"""Changes to how many frames a clip has, and to their order in blocks; as in `perturb`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from probe.errors import ProbeError
from probe.video.clip import Clip, join
from probe.video.perturb import keep


def single(clip: Clip, frame: int = 0) -> Clip:
    """One frame alone, at its own time; `perturb.freeze` shows it at every time instead.

    Raises:
        ProbeError: no such frame.
    """
    return keep(clip, frame)


def window(clip: Clip, first: int = 0, count: int | None = None) -> Clip:
    """A contiguous part of the clip.

    Args:
        clip: the clip.
        first: of them, from 0.
        count: how many frames; None for all that follow.

    Raises:
        ProbeError: frames that the clip does not have.
    """
    end = len(clip) if count is None else first + _whole("window", "count", count)
    if not 0 <= first < end <= len(clip):
        raise ProbeError(
            f"{clip.source}: no frames {first} to {end - 1}; there are 0 to {len(clip) - 1}"
        )
    return keep(clip, np.arange(first, end))


def subsample(clip: Clip, every: int, first: int = 0) -> Clip:
    """Every so many frames, each at its own time: the strided counterpart of `window`.

    Args:
        clip: the clip.
        every: 1 leaves the clip as it is, 2 takes every other frame.
        first: frame that is taken first, from 0.

    Raises:
        ProbeError: `every` below 1, or no such first frame.
    """
    _whole("subsample", "every", every)
    if not 0 <= first < len(clip):
        raise ProbeError(f"{clip.source}: no frame {first}; there are 0 to {len(clip) - 1}")
    return keep(clip, np.arange(first, len(clip), every))


def resample(clip: Clip, count: int) -> Clip:
    """Another number of frames, evenly over the clip: round(linspace(0, last, count)).

    Fewer frames keep their own times. With more, frames are shown several times in a row and the
    times are interpolated between those of the places, so the clip lasts as long.

    Args:
        clip: the clip.
        count: how many frames.

    Raises:
        ProbeError: `count` below 1.
    """
    _whole("resample", "count", count)
    last = len(clip) - 1
    if count == len(clip):
        return clip
    places = np.linspace(0, last, count)
    taken = np.floor(places + 0.5).astype(np.int64)  # half up, not to even: no place is favoured
    note = f"{len(clip)} frames resampled to {count}"
    if count < len(clip):
        return clip.take(taken, note)
    return replace(
        clip,
        frames=clip.frames[taken],
        seconds=np.interp(places, np.arange(len(clip)), clip.seconds),
        source_frames=clip.source_frames[taken],
        note=join(clip.note, note),
    )


def loop(clip: Clip, times: int) -> Clip:
    """The beginning of the clip shown again and again, in as many frames as before.

    Args:
        clip: the clip.
        times: how often the first ceil(frames / times) frames are shown; 1 leaves the clip as it
            is.

    Raises:
        ProbeError: `times` below 1.
    """
    _whole("loop", "times", times)
    period = -(-len(clip) // times)
    if period == len(clip):
        return clip
    order = np.arange(len(clip)) % period
    return _ordered(clip, order, f"the first {period} frames in a loop")


def swap_halves(clip: Clip) -> Clip:
    """The second half before the first; of an odd number of frames the middle one stays.

    Twice is the identity.
    """
    half = len(clip) // 2
    if half == 0:
        return clip
    numbers = np.arange(len(clip))
    order = np.concatenate([numbers[-half:], numbers[half:-half], numbers[:half]])
    return _ordered(clip, order, "halves swapped")


def interleave(clip: Clip, parts: int, size: int) -> Clip:
    """Frames in the groups that an encoder makes of interleaved parts, each encoded alone.

    Part j has frames j, j + parts, j + 2 parts, ...; an encoder that merges `size` frames in a
    row then merges frames that lie `parts` apart. The groups come in the order of their first
    frames. With one part, or one frame a group, this is the clip itself.

    Args:
        clip: the clip.
        parts: how many parts; they must have whole groups of frames.
        size: frames that the encoder merges.

    Raises:
        ProbeError: frames that do not divide into parts of whole groups.
    """
    _whole("interleave", "parts", parts)
    if parts == 1 or size == 1:
        return clip
    if len(clip) % (parts * size):
        raise ProbeError(
            f"{clip.source}: {len(clip)} frames do not divide into {parts} parts of whole groups "
            f"of {size}; encode a multiple of {parts * size} frames"
        )
    order = np.arange(len(clip)).reshape(-1, size, parts).swapaxes(1, 2).reshape(-1)
    return _ordered(clip, order, f"groups of {size} frames that lie {parts} apart")


def _ordered(clip: Clip, order: np.ndarray, note: str) -> Clip:
    return replace(
        clip,
        frames=clip.frames[order],
        source_frames=clip.source_frames[order],
        note=join(clip.note, note),
    )


def _whole(what: str, name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ProbeError(f"{what}: {name} is a whole number of at least 1, not {value!r}")
    return int(value)
