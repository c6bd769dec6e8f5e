"""Thumbnail: some frames of the clip on one picture, beside the clip or in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import UInt8

from probe.ablate.base import Ablation
from probe.ablate.frames import which_clips
from probe.errors import ProbeError
from probe.models.given import Picture
from probe.video import Clip
from probe.video.clip import join

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel


@dataclass(frozen=True)
class Thumbnail(Ablation):
    """A picture of equidistant frames on a grid, shown with the clip: half of TS-LLaVA.

    Attributes:
        count: how many frames are on it, the first and the last included; the grid is the most
            nearly square one that they fill, with at least as many rows as columns (6: 3 x 2).
        order: the thumbnail comes "after" the clip or "before" it.
        where: as an "image" of its own, which the family encodes as it does images, or as one
            more "frame" of the clip, encoded as its frames are. A frame has the clip's size, and
            the time of the clip's last or first frame; a family that merges frames is shown it
            as often as it merges.
        side: height and width of the picture in pixels (TS-LLaVA: 336); by default those of a
            frame.
        clip: number of the clip, or "all".
    """

    place: ClassVar[str] = "frames"
    source: ClassVar[str] = "TS-LLaVA (Qu et al. 2024, arXiv 2411.11066): the thumbnail"

    count: int = 6
    order: str = "after"
    where: str = "image"
    side: int | None = None
    clip: int | str = "all"

    def prepare(self, model: VideoModel, x: Example) -> Example:
        self._check()
        chosen = which_clips(self.clip, x, self.kind)
        if not chosen:
            return x
        self._refuse(model)
        if self.where == "image":
            pairs = [self._pair(c) if n in chosen else (c,) for n, c in enumerate(x.clips)]
            return x.again(model, pairs)
        sizes = [max(map(len, seen.grid.frames)) if seen.grid else 1 for seen in x.layout.clips]
        clips = list(zip(x.clips, sizes, strict=True))
        longer = [self._longer(c, s) if n in chosen else c for n, (c, s) in enumerate(clips)]
        return x.again(model, longer)

    def _check(self) -> None:
        if self.order not in ("after", "before") or self.where not in ("image", "frame"):
            raise ProbeError(
                f'{self.kind}: order is "after" or "before", where is "image" or "frame"'
            )
        if self.where == "frame" and self.side is not None:
            raise ProbeError(f"{self.kind}: a frame has the clip's size; leave side out")

    def _refuse(self, model: VideoModel) -> None:
        family = model.family
        if self.where == "image" and family.image_token is None:
            other = ' use where="frame"' if family.frames is None else " it has no place for one"
            raise ProbeError(f"{self.kind}: {family.title} takes no images beside a clip;{other}")
        if self.where == "frame" and family.frames is not None:
            other = " it has no place for one" if family.image_token is None else ' use "image"'
            raise ProbeError(
                f"{self.kind}: {family.title} takes {family.frames} frames a clip and no other;"
                f"{other}"
            )

    def _pair(self, clip: Clip) -> tuple[Clip | Picture, ...]:
        made = Picture(collage(clip, self.count, self.side), f"thumbnail of {clip.source}")
        return (clip, made) if self.order == "after" else (made, clip)

    def _longer(self, clip: Clip, size: int) -> Clip:
        """The clip with the thumbnail as one more group of `size` frames."""
        after = self.order == "after"
        if after and len(clip) % size:
            raise ProbeError(
                f"{self.kind}: the family merges {size} frames, and the last of {len(clip)} would "
                f"be merged with the thumbnail; encode a multiple of {size} frames"
            )
        place, end = (len(clip), -1) if after else (0, 0)
        places, picture = [place] * size, collage(clip, self.count)
        return replace(
            clip,
            frames=np.insert(clip.frames, places, picture, axis=0),
            seconds=np.insert(clip.seconds, places, clip.seconds[end]),
            source_frames=np.insert(clip.source_frames, places, clip.source_frames[end]),
            note=join(clip.note, f"frame {place} is a thumbnail of {self.count} frames"),
        )


def collage(clip: Clip, count: int, side: int | None = None) -> UInt8[np.ndarray, "height width 3"]:
    """Equidistant frames on a grid, row by row.

    Frames are shrunk by averaging areas and enlarged bilinearly. Pixels that the grid does not
    divide are cut off, as published, and where the picture has a frame's size, filled with the
    last row and column.

    Args:
        clip: the clip.
        count: frames on it, rounded to the nearest places; one is the first frame.
        side: height and width of the picture; a frame's own by default.

    Raises:
        ProbeError: more frames than there are, or cells without a pixel.
    """
    if not 1 <= count <= len(clip):
        raise ProbeError(
            f"thumbnail: count={count} frames of a clip of {len(clip)}; take 1 to {len(clip)}"
        )
    rows, cols = grid_of(count)
    height, width = clip.frames.shape[1:3] if side is None else (side, side)
    if rows > height or cols > width:
        raise ProbeError(f"thumbnail: {rows} x {cols} frames on {height} x {width} pixels")
    taken = np.round(np.linspace(0, len(clip) - 1, count)).astype(np.int64)
    small = _resized(clip.frames[taken], height // rows, width // cols)
    grid = small.reshape(rows, cols, *small.shape[1:]).swapaxes(1, 2)
    whole = grid.reshape(rows * small.shape[1], cols * small.shape[2], 3)
    missing = (0, 0) if side else (height - whole.shape[0], width - whole.shape[1])
    return np.pad(whole, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")


def grid_of(count: int) -> tuple[int, int]:
    """(rows, columns) of the most nearly square full grid, with rows at least columns."""
    cols = next(n for n in range(isqrt(count), 0, -1) if count % n == 0)
    return count // cols, cols


def _resized(
    frames: UInt8[np.ndarray, "time height width 3"], height: int, width: int
) -> UInt8[np.ndarray, "time rows cols 3"]:
    import torch
    from torch.nn.functional import interpolate

    if frames.shape[1:3] == (height, width):
        return frames
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    if height < frames.shape[1] or width < frames.shape[2]:
        made = interpolate(pixels, (height, width), mode="area")
    else:
        made = interpolate(pixels, (height, width), mode="bilinear", align_corners=False)
    return made.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
