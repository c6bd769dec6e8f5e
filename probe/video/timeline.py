"""When each frame of a stream is shown, found without decoding where the file tells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64

from probe.errors import ProbeError
from probe.video.clip import join
from probe.video.container import opened
from probe.video.extent import missing_bytes

if TYPE_CHECKING:
    from av import VideoStream
    from av.container import InputContainer


@dataclass(frozen=True, eq=False)
class Timeline:
    """The frames of one stream in the order they are shown.

    Attributes:
        stream: number of the stream in the file.
        seconds: when each frame is shown, on the file's own clock.
        end: when the last one ends.
        pts: the same in the stream's ticks, equal to what decoded frames carry; None where frames
            are known by their order only.
        starts: numbers of the frames at which decoding can begin, ascending.
        start_dts: where to seek for each of these, in ticks.
        lack: what the file declares and does not hold, or None.
        note: how the times were found, where the file has none.
    """

    stream: int
    seconds: Float64[np.ndarray, " frame"]
    end: float
    pts: Int64[np.ndarray, " frame"] | None
    starts: Int64[np.ndarray, " start"]
    start_dts: Int64[np.ndarray, " start"]
    lack: str | None = None
    note: str | None = None

    def __len__(self) -> int:
        return len(self.seconds)


def scan(path: Path, stream: int | None) -> Timeline:
    """From the packets: every one is read, none is decoded.

    Raises:
        ProbeError: not a video, or one without frames.
    """
    with opened(path, stream) as (container, video):
        packets, found = _packets(container, video)
        lack = _lack(path, container, video, packets, found)
        tick = float(video.time_base or 0)
        number = video.index
    shown = [packet for packet in packets if not packet.discard]
    pts = [packet.pts for packet in shown]
    if not shown or None in pts or len(set(pts)) < len(pts):
        return rescan(path, number, lack)
    shown.sort(key=lambda packet: packet.pts)
    keys = [(i, p.dts) for i, p in enumerate(shown) if p.key and p.dts is not None]
    ticks = np.array([packet.pts for packet in shown], dtype=np.int64)
    seconds = ticks * tick
    return Timeline(
        stream=number,
        seconds=seconds,
        end=_end(seconds, shown[-1].duration * tick, None),
        pts=ticks,
        starts=np.array([i for i, _ in keys], dtype=np.int64),
        start_dts=np.array([dts for _, dts in keys], dtype=np.int64),
        lack=lack,
    )


def rescan(path: Path, stream: int, lack: str | None) -> Timeline:
    """From the decoded frames, for files whose packets do not tell; slow, and holds no picture.

    Args:
        path, stream: the file and the number of the stream.
        lack: what `scan` found missing.

    Raises:
        ProbeError: not one frame can be decoded.
    """
    from probe.video.decode import good_frames

    with opened(path, stream) as (container, video):
        errors: list[str] = []
        pts: list[Any] = [frame.pts for frame in good_frames(container, video, errors)]
        rate = float(video.average_rate or 25)
        tick = float(video.time_base or 0)
    if not pts:
        raise ProbeError(f"{path}: not one frame of it can be decoded; copy it again")
    known = None not in pts and (len(pts) == 1 or min(pts) < max(pts))
    # decoders give frames in the order they are shown, also where a container's times are not
    seconds = np.sort(np.array(pts)) * tick if known else np.arange(len(pts)) / rate
    if errors:
        damage = f"is damaged: {len(errors)} of its frames cannot be decoded, {len(pts)} can"
        lack = f"{lack}, and {damage}" if lack else damage
    return Timeline(
        stream=stream,
        seconds=seconds.astype(np.float64),
        end=_end(seconds, 0.0, rate),
        pts=None,
        starts=np.zeros(0, dtype=np.int64),
        start_dts=np.zeros(0, dtype=np.int64),
        lack=lack,
        note=None if known else f"no timestamps in the file: {rate:g} frames a second are assumed",
    )


@dataclass(frozen=True)
class _Packet:
    pts: Any
    dts: int | None
    duration: int
    key: bool
    discard: bool


@dataclass
class _Found:
    end: float = 0.0  # of any stream, seconds
    video_end: float = 0.0
    broken: int = 0


def _packets(container: InputContainer, video: VideoStream) -> tuple[list[_Packet], _Found]:
    from av.error import FFmpegError

    packets: list[_Packet] = []
    found = _Found()
    tick = {stream.index: float(stream.time_base or 0) for stream in container.streams}
    try:
        for packet in container.demux():
            if packet.pts is not None:
                end = (packet.pts + (packet.duration or 0)) * tick[packet.stream_index]
                found.end = max(found.end, end)
                if packet.stream_index == video.index:
                    found.video_end = max(found.video_end, end)
            if packet.stream_index != video.index or not packet.size:
                continue
            if packet.is_corrupt:
                found.broken += 1
                continue
            packets.append(
                _Packet(
                    packet.pts,
                    packet.dts,
                    packet.duration or 0,
                    packet.is_keyframe,
                    packet.is_discard,
                )
            )
    except FFmpegError:
        found.broken += 1
    return packets, found


def _lack(
    path: Path,
    container: InputContainer,
    video: VideoStream,
    packets: list[_Packet],
    found: _Found,
) -> str | None:
    """What is declared and missing, as the end of a sentence about the file."""
    name = container.format.name
    declared = len(video.index_entries) if name.startswith("mov") else 0
    if declared > len(packets):
        return f"ends early: it declares {declared} frames and holds {len(packets)}"
    length, held = _declared_seconds(container, video, found)
    if length > held:
        return f"ends early: it declares {length:.2f} s and holds {held:.2f} s"
    missing = missing_bytes(path)
    if missing:
        return f"ends early: {missing} bytes that it declares are missing"
    if found.broken:
        return "is damaged: a part of it cannot be read"
    lead = next((number for number, packet in enumerate(packets) if packet.key), 0)
    if lead:
        return f"begins in the middle: its first {lead} frames build on others that are not there"
    return None


def _declared_seconds(
    container: InputContainer, video: VideoStream, found: _Found
) -> tuple[float, float]:
    """Seconds declared and held, equal where the difference means nothing."""
    tag = video.metadata.get("DURATION", "").split(":")  # Matroska, by stream
    if len(tag) == 3:
        try:
            length = int(tag[0]) * 3600 + int(tag[1]) * 60 + float(tag[2])
        except ValueError:
            length = 0.0
        gap = 1.0 / float(video.average_rate or 25)
        return (length, found.video_end) if length > found.video_end + 2 * gap + 0.1 else (0, 0)
    # a length that some other stream, or a careless writer, may have set
    if container.format.name.split(",")[0] in {"matroska", "flv", "asf", "avi"}:
        length = (container.duration or 0) / 1e6
        if length > found.end + max(1.0, 0.02 * length):
            return length, found.end
    return 0, 0


def _end(seconds: np.ndarray, last: float, rate: float | None) -> float:
    """When the last frame ends; without its own duration, after the usual step."""
    if last <= 0:
        last = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0 / (rate or 25.0)
    return float(seconds[-1]) + last


def partial(timeline: Timeline) -> Timeline:
    """The timeline of what is there, accepted as it is: its lack becomes its note."""
    note = (
        f"the file {timeline.lack}; what is there is used: {len(timeline)} frames, "
        f"{timeline.seconds[0]:.2f} to {timeline.end:.2f} s"
    )
    return replace(timeline, lack=None, note=join(timeline.note, note))
