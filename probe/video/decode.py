"""From a stream to the wanted frames, one frame in memory at a time beside those."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64, UInt8

from probe.errors import ProbeError
from probe.video.container import opened
from probe.video.orient import orientation, turn
from probe.video.timeline import Timeline

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer

LARGEST = 8 * 2**30  # bytes of frames a clip may take
FAR = 100  # frames: from here on, seeking is quicker than decoding on

Frames = UInt8[np.ndarray, "picked height width 3"]


class Unexpected(Exception):
    """Decoding gave other frames than the packets announced; look closer with `rescan`."""


def decode(
    path: Path, timeline: Timeline, wanted: Int64[np.ndarray, " picked"], seek: bool = True
) -> Frames:
    """The frames of these numbers as RGB, turned as they are to be shown.

    Colours follow the stream's matrix and range, or ffmpeg's defaults where it names none; HDR is
    not tone-mapped, and pixels that are not square stay as stored.

    Args:
        path: the file.
        timeline: from `scan` or `rescan`.
        wanted: numbers of frames, increasing.
        seek: jump over what is not wanted; exact, or `Unexpected` is raised.

    Raises:
        ProbeError: the frames would take more than 8 GiB.
        Unexpected: a frame is missing, damaged, or not where the timeline has it.
    """
    with opened(path, timeline.stream) as (container, video):
        if timeline.pts is None:
            found = _by_order(container, video, wanted)
        else:
            found = _by_time(container, video, timeline, timeline.pts, wanted, seek)
        images: np.ndarray | None = None
        size, taken = (0, 0), 0
        for frame in found:
            size = size if taken else (frame.width, frame.height)  # later ones are scaled to it
            image = turn(
                frame.to_ndarray(format="rgb24", width=size[0], height=size[1]),
                orientation(frame, video.metadata),
            )
            if images is None:
                images = _room(path, len(wanted), image)
            if image.shape != images.shape[1:]:
                raise ProbeError(f"{path}: is turned in the middle; cut it there and use a part")
            images[taken] = image
            taken += 1
    if images is None or taken < len(wanted):
        raise Unexpected
    return images


def good_frames(
    container: InputContainer, video: VideoStream, errors: list[str]
) -> Iterator[VideoFrame]:
    """Every frame that decodes without damage, as shown; what fails is added to `errors`."""
    from av.error import FFmpegError

    packets = container.demux(video)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            if packet.size and packet.is_corrupt:
                errors.append("cut")
                continue
            frames = packet.decode()
        except FFmpegError as error:
            errors.append(str(error))
            if len(errors) > 1000 and errors[-1000:] == [errors[-1]] * 1000:
                return  # a reader that fails the same way for ever
            continue
        for frame in frames:
            if frame.is_corrupt:
                errors.append("corrupt")
            else:
                yield frame


def _by_order(
    container: InputContainer, video: VideoStream, wanted: np.ndarray
) -> Iterator[VideoFrame]:
    numbers = set(wanted.tolist())
    for number, frame in enumerate(good_frames(container, video, [])):
        if number in numbers:
            yield frame
        if number == wanted[-1]:
            return


def _by_time(
    container: InputContainer,
    video: VideoStream,
    timeline: Timeline,
    pts: np.ndarray,
    wanted: np.ndarray,
    seek: bool,
) -> Iterator[VideoFrame]:
    """Decode on from frame to frame, or jump; every frame is compared with the timeline."""
    frames, number = _strict(container, video), 0
    for target in wanted.tolist():
        last = int(np.searchsorted(timeline.starts, target, side="right")) - 1
        if seek and last >= 0 and timeline.starts[last] - number >= FAR:
            number = int(timeline.starts[last])
            container.seek(int(timeline.start_dts[last]), stream=video)
            frames = _strict(container, video, since=int(pts[number]))
        for frame in frames:
            if frame.is_corrupt or frame.pts != pts[number]:
                raise Unexpected
            number += 1
            if number > target:
                yield frame
                break
        else:
            raise Unexpected


def _strict(
    container: InputContainer, video: VideoStream, since: int | None = None
) -> Iterator[VideoFrame]:
    from av.error import FFmpegError

    try:
        for packet in container.demux(video):
            if packet.size and packet.is_corrupt:
                continue
            for frame in packet.decode():
                if since is None or (frame.pts is not None and frame.pts >= since):
                    yield frame
    except FFmpegError:
        raise Unexpected from None


def _room(path: Path, count: int, image: np.ndarray) -> np.ndarray:
    size = count * image.nbytes
    if size > LARGEST:
        height, width = image.shape[:2]
        raise ProbeError(
            f"{path}: {count} frames of {width}x{height} take {size / 2**30:.1f} GiB of memory; "
            f"ask for at most {LARGEST // image.nbytes} frames"
        )
    return np.empty((count, *image.shape), dtype=np.uint8)
