"""The short clip that a checkpoint is examined on: seeded noise with a shape that moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from probe.video import Clip

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.family import Family
    from probe.models.video_model import VideoModel

QUESTION = "What moves?"
CELL = 12  # pixels of the given frame that a token should see along each axis at least
RAGGED = (0.0, 0.5, 1.3, 1.8, 3.0, 3.2)  # seconds between frames differ


def noise(count: int, height: int, width: int, seed: int = 0) -> UInt8[np.ndarray, "t h w 3"]:
    """Frames of noise, each its own, and a bright square that moves over them."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    side = max(2, min(height, width) // 4)
    for number in range(count):
        along = number / max(1, count - 1)
        top, left = int((height - side) * along / 2), int((width - side) * along)
        frames[number, top : top + side, left : left + side] //= 4
        frames[number, top : top + side, left : left + side] += 180
    return frames


def times(count: int) -> np.ndarray:
    """Seconds of the frames, at a rate that varies."""
    whole = [RAGGED[n % len(RAGGED)] + n // len(RAGGED) * 4.0 for n in range(count)]
    return np.array(whole)


def noise_clip(count: int, size: tuple[int, int], seed: int = 0) -> Clip:
    """The frames as a clip of that (height, width)."""
    return Clip.from_array(noise(count, *size, seed), seconds=times(count), source="noise")


def count_for(family: Family, frames: int) -> int:
    """How many frames the family is shown: what was asked for, or its fixed number."""
    return family.frames or max(1, frames)


def example(model: VideoModel, frames: int) -> tuple[Clip, Example]:
    """A clip whose tokens see enough pixels each to be told apart, and its encoding.

    Raises:
        ProbeError: the checkpoint cannot encode it.
    """
    count, size = count_for(model.family, frames), _size(model.processor)
    for _ in range(4):
        clip = noise_clip(count, size)
        x = model.encode(clip, QUESTION, frames=None)
        seen = _cell(x)
        if seen is None or seen >= CELL or (size == _size(model.processor) and _exact(model)):
            break
        size = (size[0] * 3 // 2, size[1] * 3 // 2)
    return clip, x


def _size(processor: Any) -> tuple[int, int]:
    """(height, width) that the processor passes on as it is, or with little change."""
    part = _part(processor)
    size = getattr(part, "size", None) or {}
    short = _get(size, "shortest_edge") or 0
    if _exact_of(part):
        return int(_get(size, "height") or 0), int(_get(size, "width") or 0)
    if 16 <= short <= 1024 and _get(size, "longest_edge") is None:
        return short, short * 4 // 3
    side = int(getattr(part, "patch_size", 0) or 14) * int(getattr(part, "merge_size", 0) or 2)
    return 6 * side, 8 * side


def _exact(model: VideoModel) -> bool:
    return _exact_of(_part(model.processor))


def _part(processor: Any) -> Any:
    """What prepares pixels; None where a user's processor does it itself."""
    own = getattr(processor, "video_processor", None)
    return own or getattr(processor, "image_processor", None)


def _exact_of(part: Any) -> bool:
    size = getattr(part, "size", None) or {}
    return bool(_get(size, "height") and _get(size, "width"))


def _get(size: Any, name: str) -> Any:
    return size.get(name) if hasattr(size, "get") else getattr(size, name, None)


def _cell(x: Example) -> float | None:
    """Pixels that the smallest cell of the clip's grid has along an axis."""
    clip = x.layout.clips[0]
    if clip.grid is None or not len(clip.grid.row_edges):
        return None
    edges = zip((clip.grid.row_edges, clip.grid.col_edges), clip.size, strict=True)
    return min(float((e[:, 1] - e[:, 0]).min()) * side for e, side in edges)
