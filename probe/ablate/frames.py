"""Frames: other frames, in another order, or changed pictures, encoded as a user would have."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from probe.ablate.base import Ablation
from probe.errors import ProbeError
from probe.video import Clip, perturb, perturb_picture, perturb_ruler, perturb_time

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel

CHANGES: dict[str, Callable[..., Clip]] = {
    "drop": perturb.drop,
    "keep": perturb.keep,
    "single": perturb_time.single,
    "window": perturb_time.window,
    "subsample": perturb_time.subsample,
    "resample": perturb_time.resample,
    "shuffle": perturb.shuffle,
    "reverse": perturb.reverse,
    "swap_halves": perturb_time.swap_halves,
    "freeze": perturb.freeze,
    "loop": perturb_time.loop,
    "blank": perturb.blank,
    "noise": perturb.noise,
    "mask": perturb_picture.mask,
    "crop": perturb_picture.crop,
    "tiles": perturb_picture.tiles,
    "ruler": perturb_ruler.ruler,
}
_ORDERS = ("shuffle", "reverse", "swap_halves", "freeze", "loop")  # nothing to do with one frame


@dataclass(frozen=True)
class Frames(Ablation):
    """Other frames: the clip is changed and the prompt encoded anew, options and answer included.

    It fires when the model is shown something else: other pixels, another number of frames or
    other times. So the shuffle of a clip whose frames are all equal is refused, as nothing can be
    learned from it; a clip of one frame has no order to change, and is left alone.

    Attributes:
        what: drop, keep, single, window, subsample, resample: which frames there are; shuffle,
            reverse, swap_halves, freeze, loop: what is shown when; blank, noise, mask, crop,
            tiles, ruler: what the pictures are. See the function of that name in
            `probe.video.perturb` and the modules beside it for its arguments and times.
        clip: number of the clip that is changed, or "all".
        frames, frame: of drop, keep, blank, noise; of single, freeze. Numbers from 0 in the clip.
        seed: of shuffle, drop, noise, mask.
        magnitude, unit: of drop, reverse, shuffle, in chunks.
        first, count, every, times: of window, resample, subsample, loop.
        amount: share of noise; share: masked share.
        fill, size, of: of blank and mask.
        rows, cols, tile, how: of crop and tiles.
        ticks, outside, scale: of ruler.
    """

    place: ClassVar[str] = "frames"
    source: ClassVar[str] = "temporal perturbations as in TEMPLE (arXiv 2503.16929), and controls"

    what: str
    clip: int | str = "all"
    frames: int | Sequence[int] | None = None
    frame: int | None = None
    seed: int | None = None
    magnitude: int | None = None
    unit: int | None = None
    first: int | None = None
    count: int | None = None
    every: int | None = None
    times: int | None = None
    amount: float | None = None
    share: float | None = None
    fill: str | None = None
    size: int | None = None
    of: str | None = None
    rows: int | None = None
    cols: int | None = None
    tile: int | None = None
    how: str | None = None
    ticks: int | None = None
    outside: bool | None = None
    scale: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.what not in CHANGES:
            raise ProbeError(f"frames: what={self.what!r} is none of {', '.join(CHANGES)}")
        takes = inspect.signature(CHANGES[self.what]).parameters
        own = [name for name in takes if name != "clip"]
        wrong = [name for name in self._given if name not in own]
        if wrong:
            raise ProbeError(
                f"frames: {self.what} does not take {wrong[0]}; it takes "
                f"{', '.join(own) or 'nothing'}"
            )
        needed = [n for n in own if takes[n].default is inspect.Parameter.empty]
        missing = [name for name in needed if name not in self._given]
        if missing:
            raise ProbeError(f"frames: {self.what} needs {missing[0]}=")

    @property
    def _given(self) -> dict[str, Any]:
        """Arguments of the change."""
        values = {field.name: getattr(self, field.name) for field in fields(self)[2:]}
        return {name: value for name, value in values.items() if value is not None}

    def prepare(self, model: VideoModel, x: Example) -> Example:
        chosen = which_clips(self.clip, x, self.kind)
        new = [self._changed(c) if n in chosen else c for n, c in enumerate(x.clips)]
        return reencoded(self, model, x, new)

    def _changed(self, clip: Clip) -> Clip:
        if len(clip) == 1 and self.what in _ORDERS and not self.frame:
            return clip
        return CHANGES[self.what](clip, **self._given)


@dataclass(frozen=True)
class Interleave(Ablation):
    """Interleaved parts of the clip, each encoded alone, their tokens put back in order of time.

    INTP (Shang et al. 2024, arXiv:2409.12963) shows an encoder trained for few frames m times as
    many: every m-th frame from each of the first m on. Where the encoder looks at every frame
    alone this changes nothing, and this ablation is neutral. Where it merges frames in a row,
    as those of Qwen2-VL do with two, it merges frames that lie m apart: the same as the clip with
    its frames in that order, since no other part of these encoders crosses groups of frames. The
    times are those of the places.

    Attributes:
        parts: m, how many parts; frames of the clip / frames the encoder is meant for.
        clip: number of the clip, or "all".
    """

    place: ClassVar[str] = "frames"
    source: ClassVar[str] = "INTP (Shang et al. 2024, arXiv 2409.12963): the encoder's half"

    parts: int
    clip: int | str = "all"

    def prepare(self, model: VideoModel, x: Example) -> Example:
        chosen = which_clips(self.clip, x, self.kind)
        new = []
        for number, (clip, seen) in enumerate(zip(x.clips, x.layout.clips, strict=True)):
            sizes = [len(frames) for frames in seen.grid.frames] if seen.grid else [1]
            change = number in chosen
            new.append(perturb_time.interleave(clip, self.parts, max(sizes)) if change else clip)
        return reencoded(self, model, x, new)


def which_clips(clip: int | str, x: Example, owner: str) -> list[int]:
    """Numbers of the clips that are meant.

    Raises:
        ProbeError: no such clip; not where the prompt has none at all.
    """
    count = len(x.clips)
    if clip == "all" or not count:
        return list(range(count))
    if isinstance(clip, bool) or not isinstance(clip, int) or not 0 <= clip < count:
        raise ProbeError(f'{owner}: there is no clip {clip!r}; write 0 to {count - 1}, or "all"')
    return [clip]


def reencoded(ablation: Ablation, model: VideoModel, x: Example, clips: Sequence[Clip]) -> Example:
    """The example with other clips; itself where every clip is the one that it had.

    Raises:
        ProbeError: what the model is shown is the same all the same, or a number of frames that
            the family does not take.
    """
    pairs = list(zip(x.clips, clips, strict=True))
    if all(new is old for old, new in pairs):
        return x
    if all(_equal(new, old) for old, new in pairs):
        raise ProbeError(
            f"{ablation}: the frames it moved or changed are equal, so the model is shown the "
            "same; the ablation did not fire"
        )
    fixed = model.family.frames
    wrong = [len(new) for old, new in pairs if fixed is not None and len(new) != fixed]
    if wrong:
        raise ProbeError(
            f"{ablation}: {model.family.title} takes {fixed} frames a clip, and this leaves "
            f'{wrong[0]}; use what keeps the number, such as "blank" or "freeze"'
        )
    return x.again(model, clips)


def _equal(a: Clip, b: Clip) -> bool:
    return a is b or (
        a.frames.shape == b.frames.shape
        and np.array_equal(a.seconds, b.seconds)
        and np.array_equal(a.frames, b.frames)
    )
