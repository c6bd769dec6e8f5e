"""Files that are odd but fine: uneven times, turned, other containers, long, one frame."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from probe.errors import ProbeError
from probe.video import decode, read
from probe.video.orient import UPRIGHT, orientation, turn
from probe.video.timeline import scan
from tests.video.write import SIZE, numbers_of, write

UNEVEN = [0, 40, 50, 250, 251, 600, 640, 1640]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_uneven_times(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"uneven.{suffix}", len(UNEVEN), ticks=UNEVEN)
    clip = read(path, frames=None)
    assert clip.seconds.tolist() == pytest.approx([tick / 1000 for tick in UNEVEN], abs=1e-9)
    assert numbers_of(clip.frames) == list(range(len(UNEVEN)))
    assert clip.fps == pytest.approx(7 / 1.64)
    shown = read(path, times=[0.1, 0.3, 1.0])
    assert shown.source_frames.tolist() == numbers_of(shown.frames) == [2, 4, 6]
    assert read(path, fps=2.0).source_frames.tolist() == [0, 4, 6, 6][:3]


def test_one_frame(tmp_path: Path) -> None:
    clip = read(write(tmp_path / "one.mp4", 1))
    assert numbers_of(clip.frames) == [0]
    assert clip.seconds.tolist() == [0.0]
    assert clip.duration == pytest.approx(0.04)
    assert clip.fps == pytest.approx(25)
    assert clip.note == "16 frames asked, the clip has 1: all are used"


@pytest.mark.parametrize(
    ("name", "how", "start"),
    [
        ("b.mp4", {"options": {"bf": "3"}}, 0.0),
        ("fragments.mp4", {"container": {"movflags": "frag_keyframe+empty_moov"}}, 0.08),
        ("a.ts", {"options": {"bf": "3"}}, None),
        ("b.avi", {"options": {"bf": "3"}}, 0.04),  # its packets tell the times wrongly
        ("raw.h264", {"options": {"bf": "3"}}, 0.0),  # no times at all
        ("eight.webm", {"codec": "libvpx", "options": {"auto-alt-ref": "1"}}, 0.0),
        ("lossless.mkv", {"codec": "ffv1"}, 0.0),
        ("eleven bits: 100%?.mp4", {"options": {"bf": "0"}}, 0.0),
    ],
)
def test_containers(name: str, how: dict, start: float | None, tmp_path: Path) -> None:
    clip = read(write(tmp_path / name, 30, **how), frames=None)
    assert numbers_of(clip.frames) == list(range(30))
    assert np.diff(clip.seconds) == pytest.approx(np.full(29, 0.04), abs=1e-9)
    if start is not None:
        assert clip.seconds[0] == pytest.approx(start)
    assert ("no timestamps" in (clip.note or "")) == (name == "raw.h264")


def test_seeking_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "long.mp4", 600, options={"g": "60", "bf": "3", "preset": "ultrafast"})
    timeline = scan(path, None)
    wanted = np.array([0, 1, 59, 60, 61, 179, 300, 301, 419, 599])
    decoded = []
    strict = decode._strict

    def counted(*args, **more):
        for frame in strict(*args, **more):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(decode, "_strict", counted)
    straight = decode.decode(path, timeline, wanted, seek=False)
    assert len(decoded) == 600
    decoded.clear()
    jumped = decode.decode(path, timeline, wanted)
    assert len(decoded) < 400
    assert (jumped == straight).all()
    assert numbers_of(jumped) == wanted.tolist()


def test_too_large_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "clip.mp4", 30)
    monkeypatch.setattr(decode, "LARGEST", 5 * SIZE * 2 * SIZE * 3)
    assert len(read(path, 5)) == 5
    with pytest.raises(ProbeError, match="ask for at most 5 frames"):
        read(path, 6)


def corners() -> np.ndarray:
    """Four corners that differ."""
    image = np.zeros((SIZE, 2 * SIZE, 3), np.uint8)
    image[: SIZE // 2, :SIZE] = 250
    image[: SIZE // 2, SIZE:] = 170
    image[SIZE // 2 :, SIZE:] = 90
    return image


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90])
@pytest.mark.parametrize("mirror", [False, True])
def test_turned(degrees: int, mirror: bool, tmp_path: Path) -> None:
    path = write(tmp_path / "t.mp4", [corners()] * 3, turn={"degrees": degrees, "hflip": mirror})
    shown = np.rot90(corners(), degrees // 90)  # counter-clockwise, as PyAV's degrees
    shown = shown[:, ::-1] if mirror else shown
    frames = read(path).frames
    assert frames.shape == (3, *shown.shape)
    assert np.abs(frames - shown.astype(float)).mean() < 4


@pytest.mark.parametrize(("tag", "turns"), [("90", -1), ("180", 2), ("270", 1), ("89.9", -1)])
def test_old_rotate_tag(tag: str, turns: int) -> None:
    frame = SimpleNamespace(side_data={})
    matrix = orientation(frame, {"rotate": tag})  # clockwise
    assert (turn(corners(), matrix) == np.rot90(corners(), turns)).all()


@pytest.mark.parametrize("tag", ["", "left", "nan", "inf"])
def test_rotate_tag_that_says_nothing(tag: str) -> None:
    assert orientation(SimpleNamespace(side_data={}), {"rotate": tag}) == UPRIGHT


def test_path_types(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", 4)
    assert (read(str(path)).frames == read(path).frames).all()
