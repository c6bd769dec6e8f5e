"""Opening a file: is it there, is it a video, and which of its streams."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError
from probe.video.extent import missing_bytes

if TYPE_CHECKING:
    from av import VideoStream
    from av.container import InputContainer

# Only these are tried: others read text as pictures, or follow links to other files and hosts.
_FORMATS = (
    "mov,mp4,matroska,webm,avi,flv,mpegts,mpeg,asf,ogg,mxf,nut,gif,apng,rm,dv,wtv,ivf,obu,"
    "h264,hevc,vvc,m4v,mpegvideo,mjpeg,vc1,yuv4mpegpipe,mp3,wav,flac,aac"
)
_CONVERT = "convert it, for example: ffmpeg -i IN -c:v libx264 OUT.mp4"


def as_path(source: str | os.PathLike[str]) -> Path:
    """The path, known to be a file that is not empty and can be read.

    Raises:
        ProbeError: an address, nothing there, a folder, an empty file, no permission.
    """
    name = os.fspath(source)
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", name):
        raise ProbeError(f"{name}: is an address, not a file; download it and give its path")
    path = Path(name)
    try:
        if path.is_dir():
            raise ProbeError(f"{name}: is a folder; give a video file in it")
        if not path.exists():
            raise ProbeError(f"{name}: there is no such file; check the path")
        if not path.is_file():
            raise ProbeError(f"{name}: is not a regular file; give a video file")
        with path.open("rb") as file:
            if not file.read(1):
                raise ProbeError(f"{name}: is empty; copy it again")
    except PermissionError:
        raise ProbeError(f"{name}: may not be read; check its permissions") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ProbeError(f"{name}: cannot be opened ({reason}); check the path") from None
    return path


@contextmanager
def opened(path: Path, stream: int | None = None) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and one of its video streams, set to decode on one thread.

    On several threads whether a damaged frame is marked so depends on who is first.

    Args:
        path: from `as_path`.
        stream: number in the file, as ffmpeg counts; by default the one players choose.

    Raises:
        ProbeError: not a video, no video stream, no such stream, a codec that is not there.
    """
    import av
    from av.error import FFmpegError

    try:
        container: Any = av.open(f"file:{path}", options={"format_whitelist": _FORMATS})
    except FFmpegError:
        if missing_bytes(path):
            raise ProbeError(
                f"{path}: its end is missing, and without it nothing can be read; copy it again"
            ) from None
        raise ProbeError(
            f"{path}: is not a video that can be read; if it plays elsewhere, {_CONVERT}"
        ) from None
    with container:
        video = choose(container, path, stream)
        if video.codec_context is None:
            raise ProbeError(f"{path}: its video codec cannot be decoded here; {_CONVERT}")
        video.thread_type = "NONE"
        yield container, video


def choose(container: InputContainer, path: Path, stream: int | None) -> VideoStream:
    """The stream of this number, or the one players choose (largest, longest, marked default).

    Raises:
        ProbeError: no video stream, or none of this number; the message lists those there are.
    """
    from av.stream import Disposition

    streams = [
        found
        for found in container.streams.video
        if not found.disposition & Disposition.attached_pic  # cover art
    ]
    if not streams:
        held = " and ".join(sorted({found.type for found in container.streams}))
        raise ProbeError(
            f"{path}: holds no video" + (f", only {held}" if held else "") + "; give a video file"
        )
    if stream is None:
        best = container.streams.best("video")
        return next((found for found in streams if best and found.index == best.index), streams[0])
    for found in streams:
        if found.index == stream:
            return found
    listed = ", ".join(f"{found.index} ({_describe(found)})" for found in streams)
    raise ProbeError(f"{path}: has no video stream {stream}; choose one of: {listed}")


def _describe(stream: VideoStream) -> str:
    context = stream.codec_context
    if context is None:
        return "unknown codec"
    return f"{context.width}x{context.height} {context.name}"
