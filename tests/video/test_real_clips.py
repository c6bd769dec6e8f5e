"""Real clips: every codec, the times, the streams, the colours."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from probe.errors import ProbeError
from probe.video import read

CLIPS = {  # frames, height, width, seconds, codec
    "av1_video.mkv": (125, 360, 640, 5.0),
    "bt709_full_range.mp4": (30, 720, 1280, 1.0),
    "h264_10bits.mp4": (30, 200, 200, 1.0),
    "h265_video.mp4": (10, 128, 128, 1.0),
    "nasa_13013.mp4": (390, 270, 480, 13.013),
    "sample_demo_1.mp4": (243, 360, 640, 9.72),
    "sample_demo_3.mp4": (146, 360, 640, 6.0894166),
    "sample_demo_9.mp4": (219, 336, 596, 9.134125),
}


def test_none_is_left_out(videos: Path) -> None:
    assert {path.name for path in videos.iterdir() if path.suffix != ".json"} == set(CLIPS)


@pytest.mark.parametrize("name", CLIPS)
def test_frames_and_times(name: str, videos: Path) -> None:
    count, height, width, seconds = CLIPS[name]
    asked = min(8, count)
    clip = read(videos / name, frames=asked)
    assert clip.frames.shape == (asked, height, width, 3)
    assert clip.note is None
    assert clip.source == str(videos / name)
    assert clip.duration == pytest.approx(seconds, abs=1e-6)
    assert clip.fps == pytest.approx(count / seconds, rel=1e-3)
    assert clip.source_frames.tolist() == np.linspace(0, count - 1, asked, dtype=int).tolist()
    with av.open(str(videos / name)) as container:  # every frame, as PyAV gives it
        for number, frame in enumerate(container.decode(container.streams.best("video"))):
            for place in np.flatnonzero(clip.source_frames == number):
                assert clip.seconds[place] == pytest.approx(frame.time, abs=1e-9)
                assert (clip.frames[place] == frame.to_ndarray(format="rgb24")).all()
    assert number == count - 1


def test_times_are_those_of_ffprobe(videos: Path) -> None:
    known = json.loads((videos / "nasa_13013.mp4.stream3.all_frames_info.json").read_text())
    clip = read(videos / "nasa_13013.mp4", frames=None, stream=3)
    assert len(clip) == len(known) == 390
    shown = np.array([float(entry["pts_time"]) for entry in known])
    assert np.abs(clip.seconds - shown).max() < 1e-6


def test_streams(videos: Path) -> None:
    path = videos / "nasa_13013.mp4"
    assert read(path, 1, stream=0).frames.shape == (1, 180, 320, 3)
    assert read(path, 1, stream=3).frames.shape == (1, 270, 480, 3)
    with pytest.raises(ProbeError, match=r"no video stream 1; .*0 \(320x180 h264\), 3 \(480x270"):
        read(path, stream=1)


KR_KB = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114)}


def to_rgb(frame: av.VideoFrame, matrix: str, full: bool) -> np.ndarray:
    """The textbook conversion, chroma repeated; an independent reference."""
    bits = frame.format.components[0].bits
    kind, unit = (np.uint8, 1) if bits == 8 else (np.uint16, 4)
    y, u, v = (np.frombuffer(p, kind).reshape(p.height, -1)[:, : p.width] for p in frame.planes)
    u, v = (plane.repeat(2, 0).repeat(2, 1).astype(float) - 128 * unit for plane in (u, v))
    white, colour = (2**bits - 1, 2**bits - 1) if full else (219 * unit, 224 * unit)
    light = (y - (0 if full else 16.0 * unit)) / white
    kr, kb = KR_KB[matrix]
    red = light + 2 * (1 - kr) * v / colour
    blue = light + 2 * (1 - kb) * u / colour
    green = (light - kr * red - kb * blue) / (1 - kr - kb)
    return 255 * np.clip(np.stack([red, green, blue], -1), 0, 1)


@pytest.mark.parametrize(
    ("name", "matrix", "full", "near"),
    [
        ("bt709_full_range.mp4", "bt709", True, 1.0),
        ("av1_video.mkv", "bt709", False, 1.0),
        ("h264_10bits.mp4", "bt601", False, 4.5),  # chroma is interpolated here: noise between
        ("sample_demo_9.mp4", "bt601", False, 1.5),
    ],
)
def test_colours(name: str, matrix: str, full: bool, near: float, videos: Path) -> None:
    image = read(videos / name, frames=1).frames[0].astype(float)
    with av.open(str(videos / name)) as container:
        frame = next(container.decode(video=0))
    off = {(m, f): np.abs(image - to_rgb(frame, m, f)).mean() for m in KR_KB for f in (True, False)}
    assert off[matrix, full] < near
    assert off[matrix, full] == min(off.values())
