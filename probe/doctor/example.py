"""The short clip that a checkpoint is examined on: seeded noise with a shape that moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from probe.models.given import Picture
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
    count = count_for(model.family, frames)
    part = _part(model.processor, "video_processor", "image_processor")
    return _suited(model, part, lambda size: noise_clip(count, size))


def picture(model: VideoModel) -> tuple[Picture, Example]:
    """The same for an image.

    Raises:
        ProbeError: the family takes no images.
    """
    part = _part(model.processor, "image_processor", "video_processor")
    return _suited(model, part, lambda size: Picture(noise(1, *size, seed=1)[0]))


def _suited(model: VideoModel, part: Any, make: Callable[[tuple[int, int]], Any]) -> Any:
    """What `make` gives at a size at which cells are large enough, and its encoding."""
    first = size = _size(part)
    for _ in range(4):
        shown = make(size)
        x = model.encode(shown, QUESTION, frames=None)
        seen = _cell(x)
        if seen is None or seen >= CELL or (size == first and _exact(part)):
            break
        size = (size[0] * 3 // 2, size[1] * 3 // 2)
    return shown, x


def _size(part: Any) -> tuple[int, int]:
    """(height, width) that a processor passes on as it is, or with little change."""
    size = getattr(part, "size", None) or {}
    short = _get(size, "shortest_edge") or 0
    if _exact(part):
        return int(_get(size, "height") or 0), int(_get(size, "width") or 0)
    if 16 <= short <= 1024 and _get(size, "longest_edge") is None:
        return short, short * 4 // 3
    side = int(getattr(part, "patch_size", 0) or 14) * int(getattr(part, "merge_size", 0) or 2)
    return 6 * side, 8 * side


def _exact(part: Any) -> bool:
    size = getattr(part, "size", None) or {}
    return bool(_get(size, "height") and _get(size, "width"))


def _part(processor: Any, *names: str) -> Any:
    """What prepares pixels; None where a user's processor does it itself."""
    return next((p for name in names if (p := getattr(processor, name, None)) is not None), None)


def _get(size: Any, name: str) -> Any:
    return size.get(name) if hasattr(size, "get") else getattr(size, name, None)


def _cell(x: Example) -> float | None:
    """Pixels that the smallest cell of the grid has along an axis."""
    shown = x.layout.visuals[0]
    if shown.grid is None or not len(shown.grid.row_edges):
        return None
    edges = zip((shown.grid.row_edges, shown.grid.col_edges), shown.size, strict=True)
    return min(float((e[:, 1] - e[:, 0]).min()) * side for e, side in edges)
