"""The same question over another clip, run once a case and shared by the diagnoses that ask."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import ProbeError
from probe.video import perturb, perturb_time

if TYPE_CHECKING:
    from probe.diagnose.case import Case
    from probe.engine.result import Run
    from probe.models.encode import Example
    from probe.video import Clip

KINDS = ("blank", "noise", "wrong", "shuffled", "reversed", "dropped", "single", "frozen")


def seen(
    case: Case, kind: str, magnitude: int | None = None, draw: int = 0, other: str = ""
) -> Run:
    """The run of a case's question over another clip; the same call runs once.

    Costs one forward pass the first time.

    Args:
        case: the case; its clip stays as it is.
        kind: one of `KINDS`; see `clip_of`.
        magnitude: of "shuffled", "reversed" and "dropped", see `probe.video.perturb`.
        draw: another random choice of the same kind.
        other: file of the clip that "wrong" shows.

    Raises:
        ProbeError: another kind, or what `perturb` refuses.
    """
    key = ("counterfactual", kind, magnitude, draw, other)
    if key not in case.memo:
        case.memo[key] = case.model.run(showing(case, kind, magnitude, draw, other))
    return case.memo[key]


def showing(
    case: Case, kind: str, magnitude: int | None = None, draw: int = 0, other: str = ""
) -> Example:
    """A case's question over other clips, encoded; arguments as in `seen`."""
    clips = [clip_of(case, clip, kind, magnitude, draw, other) for clip in case.x.clips]
    return case.x.again(case.model, clips)


def clip_of(
    case: Case, clip: Clip, kind: str, magnitude: int | None = None, draw: int = 0, other: str = ""
) -> Clip:
    """Another clip in place of one of a case.

    "blank": mean grey. "noise": uniform noise. "wrong": another video. "shuffled", "reversed",
    "dropped": frames in another order, or taken away. "single": the middle frame alone.
    "frozen": the middle frame at every time, with as many tokens as before. What "single" and
    "dropped" leave is shown for longer where a family takes a fixed number of frames, or where it
    is less than the model merges into one.

    Raises:
        ProbeError: another kind, or what `perturb` refuses.
    """
    seed = seed_of(case, draw)
    match kind:
        case "blank":
            return perturb.blank(clip)
        case "noise":
            return perturb.noise(clip, seed)
        case "wrong":
            return wrong(case, clip, other)
        case "shuffled":
            return perturb.shuffle(clip, seed, magnitude)
        case "reversed":
            return perturb.reverse(clip, magnitude)
        case "dropped":
            return enough(case, perturb.drop(clip, magnitude=magnitude or 2, seed=seed))
        case "frozen":
            return perturb.freeze(clip, len(clip) // 2)
        case "single":
            return enough(case, perturb_time.single(clip, len(clip) // 2))
    raise ProbeError(f'counterfactual: no clip "{kind}"; there are {", ".join(KINDS)}')


def enough(case: Case, left: Clip) -> Clip:
    """A clip of fewer frames, shown for longer where the model must have more."""
    merged = -(-sum(map(len, case.x.clips)) // max(1, len(case.x.layout.groups)))
    least = case.model.family.frames or merged
    return perturb_time.resample(left, max(least, len(left)))


def seed_of(case: Case, draw: int = 0) -> int:
    """A seed that depends on the case's seed and name, so that cases draw differently."""
    return zlib.crc32(f"{case.seed} {draw} {case.id}".encode())


def wrong(case: Case, clip: Clip, other: str = "") -> Clip:
    """Another video of the same number of frames and size, at the clip's times.

    Args:
        case: its seed and name decide which.
        clip: the right one.
        other: file of the other video; by default the path in `case.meta["other"]`, and without
            one a made scene of moving shapes, which on a recording is also another kind of video.

    Raises:
        ProbeError: a file that cannot be read.
    """
    from dataclasses import replace

    path = other or case.meta.get("other", "")
    count, height, width = clip.frames.shape[:3]
    if path:
        from probe.video import read

        pixels, name = read(path, frames=count).frames, str(path)
    else:
        from probe.testbed import make_scene, render

        seed = (1 << 60) + seed_of(case)  # apart from the seeds of training and of test items
        pixels, name = render(make_scene(seed, frames=max(8, count)))[:count], "made scene"
    frames = resized(pixels, height, width)
    if len(frames) < count:
        frames = frames[np.arange(count) % len(frames)]
    numbers = np.arange(count)
    return replace(clip, frames=frames, source_frames=numbers, note=f"another video: {name}")


def resized(frames: Any, height: int, width: int) -> np.ndarray:
    """Frames at another size, bilinear."""
    from PIL import Image

    if frames.shape[1:3] == (height, width):
        return np.ascontiguousarray(frames)
    how = Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(f).resize((width, height), how)) for f in frames])
