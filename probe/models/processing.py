"""The call of a checkpoint's own processor: frames with their times, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import ProbeError
from probe.models.given import Picture
from probe.video import Clip

if TYPE_CHECKING:
    from probe.models.family import Family

TICKS = 1000  # a clock of milliseconds, so that processors write true seconds into the text


def process(processor: Any, prompt: str, videos: list, metadata: list, images: list) -> dict:
    """The usual call of a processor."""
    given: dict[str, Any] = {}
    if videos:
        given |= {"videos": videos, "video_metadata": metadata, "do_sample_frames": False}
    if images:
        given["images"] = images
    return dict(processor(text=[prompt], return_tensors="pt", **given))


def refused(family: Family, clips: Sequence[Clip], error: ValueError) -> ProbeError:
    """A processor's refusal in one line."""
    counts = sorted({len(clip) for clip in clips})
    if len(counts) > 1 and "stack" in str(error):
        return ProbeError(
            f"{family.title}: the clips of one prompt must have equally many frames, "
            f"not {' and '.join(map(str, counts))}"
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ProbeError(f"{family.title}: its processor refuses this prompt: {lines[0]}")


def metadata(clip: Clip) -> Any:
    """A clip's true times as transformers' `VideoMetadata`, on a clock of milliseconds."""
    from transformers.video_utils import VideoMetadata

    height, width = clip.frames.shape[1:3]
    seconds = clip.seconds - min(0.0, float(clip.seconds[0]))
    step = (seconds[-1] - seconds[0]) / max(1, len(clip) - 1) or 1.0
    lasts = step * len(clip)
    return VideoMetadata(
        total_num_frames=max(1, round(lasts * TICKS)),
        fps=float(TICKS),
        width=int(width),
        height=int(height),
        duration=float(clip.duration) if clip.duration > 0 else float(lasts),
        frames_indices=[round(second * TICKS) for second in seconds.tolist()],
    )


def tensors(clips: Sequence[Clip], pictures: Sequence[Picture]) -> tuple[list, list, list]:
    """Frames [time, channel, height, width], their metadata, and images, for a processor."""
    import torch

    shown = [(clip.frames, (0, 3, 1, 2)) for clip in clips]
    stills = [(picture.pixels, (2, 0, 1)) for picture in pictures]
    videos, images = (
        [torch.from_numpy(np.ascontiguousarray(pixels)).permute(order) for pixels, order in some]
        for some in (shown, stills)
    )
    return videos, [metadata(clip) for clip in clips], images


def as_tensors(inputs: dict[str, Any]) -> dict[str, Any]:
    """Everything that is numbers, as tensors; processors leave some as lists."""
    import torch

    found = {}
    for name, value in inputs.items():
        if isinstance(value, list | tuple) and all(isinstance(v, int | float) for v in value):
            value = torch.tensor(value)
        if isinstance(value, torch.Tensor):
            found[name] = value
    return found
