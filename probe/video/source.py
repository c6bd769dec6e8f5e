"""read: a path or an array becomes a Clip."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from probe.errors import ProbeError
from probe.video.clip import Clip, join
from probe.video.container import as_path
from probe.video.decode import Unexpected, decode
from probe.video.sample import evenly, pick
from probe.video.timeline import Timeline, partial, rescan, scan


def read(
    source: str | os.PathLike[str] | Any,
    frames: int | None = 16,
    fps: float | None = None,
    times: Sequence[float] | np.ndarray | None = None,
    stream: int | None = None,
    allow_partial: bool = False,
    *,
    seconds: Sequence[float] | np.ndarray | None = None,
) -> Clip:
    """Frames of a video with their true times.

    Args:
        source: path of a video file, or a numpy array or torch tensor of uint8
            [time, height, width, 3] in RGB.
        frames: how many, evenly from the first to the last; None for all. Fewer are taken where
            the clip has fewer, and the note says so. Not used with `fps` or `times`.
        fps: frames a second instead.
        times: the frames on screen at these seconds instead.
        stream: number of the video stream in the file; by default the one players choose.
        allow_partial: take what is there of a file that ends early or is damaged; the note says
            how much that is.
        seconds: when each frame of an array is shown; without it, one frame a second.

    Returns:
        A clip. Times are those of the container, in seconds, not moved to start at 0. Parts of a
        long file that lie between wanted frames are not decoded, so not checked for damage.

    Raises:
        ProbeError: one line that names the file, what is wrong with it and what to do.
    """
    if not isinstance(source, (str, os.PathLike)):
        if stream is not None:
            raise ProbeError("stream is for files; an array has only one")
        clip = Clip.from_array(source, seconds)
        end = float(clip.seconds[0]) + clip.duration
        index, note = pick(clip.seconds, end, frames, fps, times)
        return clip if len(index) == len(clip) and not note else clip.take(index, note)
    if seconds is not None:
        raise ProbeError(f"{source}: seconds are for arrays; a file has its own")
    if times is None and fps is None and frames is not None:
        evenly(1, frames)  # a wrong number is known without the file
    return _read_file(as_path(source), frames, fps, times, stream, allow_partial)


def _read_file(
    path: Path,
    frames: int | None,
    fps: float | None,
    times: Sequence[float] | np.ndarray | None,
    stream: int | None,
    allow_partial: bool,
) -> Clip:
    timeline = _accept(path, scan(path, stream), allow_partial)
    for attempt in ("seek", "straight", "close"):
        if attempt == "close":
            timeline = _look_closer(path, timeline, allow_partial)
        try:
            index, note = pick(timeline.seconds, timeline.end, frames, fps, times)
        except ProbeError as error:
            raise ProbeError(f"{path}: {error}") from None
        try:
            images = decode(path, timeline, index, seek=attempt == "seek")
        except Unexpected:
            continue
        return _clip(path, timeline, index, images, note)
    raise ProbeError(f"{path}: decodes differently each time; the file may be changing, try again")


def _accept(path: Path, timeline: Timeline, allow_partial: bool) -> Timeline:
    if timeline.lack is None:
        return timeline
    if allow_partial:
        return partial(timeline)
    raise ProbeError(
        f"{path}: {timeline.lack}; copy it again, or use what is there with --allow-partial "
        "(allow_partial=True)"
    )


def _look_closer(path: Path, timeline: Timeline, allow_partial: bool) -> Timeline:
    """The timeline of what really decodes; a lack that was accepted before stays in the note."""
    closer = rescan(path, timeline.stream, None)
    step = (closer.end - closer.seconds[0]) / len(closer)
    if closer.lack is None and closer.end < timeline.end - 2 * step:
        lack = (
            f"ends early: it has frames up to {timeline.end:.2f} s, they decode to {closer.end:.2f}"
        )
        closer = replace(closer, lack=lack)
    closer = _accept(path, closer, allow_partial)
    return replace(closer, note=join(timeline.note, closer.note))


def _clip(
    path: Path, timeline: Timeline, index: np.ndarray, images: np.ndarray, note: str | None
) -> Clip:
    first, last = float(timeline.seconds[0]), float(timeline.seconds[-1])
    duration = timeline.end - first
    count = len(timeline)
    return Clip(
        frames=images,
        seconds=timeline.seconds[index],
        source_frames=index.astype(np.int64),
        fps=(count - 1) / (last - first) if count > 1 else 1.0 / duration,
        source=str(path),
        duration=duration,
        note=join(timeline.note, note),
    )
