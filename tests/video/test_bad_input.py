"""Bad files: one line that names the file and says what to do, and nothing on stderr."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from probe.errors import ProbeError
from probe.video import read
from probe.video.extent import missing_bytes
from tests.video.write import cut, number_of, numbers_of, write, write_sound

FIRST = {"container": {"movflags": "faststart"}}  # the index before the pictures
PIECES = {"options": {"g": "10"}, "container": {"movflags": "frag_keyframe+empty_moov"}}


def refused(source: object, message: str, capfd: pytest.CaptureFixture[str], **how: object) -> None:
    with pytest.raises(ProbeError) as caught:
        read(source, **how)
    text = str(caught.value)
    assert str(source) in text
    assert "\n" not in text
    assert re.search(message, text), text
    assert capfd.readouterr() == ("", "")


def test_missing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refused(tmp_path / "nothing.mp4", "no such file", capfd)
    refused(tmp_path / "no" / "thing.mp4", "no such file", capfd)


def test_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refused(tmp_path, "is a folder", capfd)


def test_pipe(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    refused(tmp_path / "pipe.mp4", "not a regular file", capfd)


def test_empty(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", "is empty", capfd)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("text.mp4", "not a video\n" * 100),
        ("art.txt", "read as a picture by some\n" * 100),
        ("links.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nclip.ts\n#EXT-X-ENDLIST\n"),
        ("list.mp4", "ffconcat version 1.0\nfile clip.mp4\n"),
    ],
)
def test_text(name: str, text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "clip.mp4", 5)
    write(tmp_path / "clip.ts", 5)
    (tmp_path / name).write_text(text)
    capfd.readouterr()
    refused(tmp_path / name, "is not a video that can be read", capfd)


@pytest.mark.parametrize("address", ["https://host/clip.mp4", "rtsp://host/live", "file:///a.mp4"])
def test_address(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    refused(address, "download it", capfd)


def test_name_that_cannot_be(capfd: pytest.CaptureFixture[str]) -> None:
    refused("a" * 5000, "cannot be opened", capfd)


def test_no_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "clip.mp4", 5)

    def denied(*args: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # the superuser may read anything
    refused(path, "may not be read", capfd)


@pytest.mark.parametrize("picture", [False, True])
def test_audio_only(picture: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_sound(tmp_path / "sound.mp4", picture)
    refused(path, "holds no video, only audio", capfd)
    refused(path, "holds no video, only audio", capfd, stream=0)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_cut_before_the_index(
    share: float, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = cut(write(tmp_path / "clip.mp4", 60), share)
    refused(path, "its end is missing", capfd)
    refused(path, "its end is missing", capfd, allow_partial=True)


CUT = [
    ("first.mp4", FIRST, 0.6, r"declares 60 frames and holds \d+;"),
    ("first.mp4", FIRST, 0.999, "declares 60 frames and holds 59;"),
    ("b.mkv", {}, 0.6, r"declares 2\.40 s and holds [01]\.\d\d s"),
    ("b.mkv", {}, 0.98, r"\d+ bytes that it declares are missing"),
    ("b.avi", {"codec": "mpeg4"}, 0.6, r"declares \d\.\d\d s|bytes that it declares are missing"),
    ("b.flv", {}, 0.6, "is damaged: a part of it cannot be read|declares"),
]


@pytest.mark.parametrize(("name", "how", "share", "message"), CUT)
def test_end_missing(
    name: str,
    how: dict,
    share: float,
    message: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    whole = write(tmp_path / name, 60, **how)
    assert read(whole).note is None
    path = cut(whole, share)
    refused(path, message, capfd)
    refused(path, message, capfd, times=[0.1])
    clip = read(path, frames=None, allow_partial=True)
    assert 0 < len(clip) <= 60
    assert numbers_of(clip.frames)[:2] == [0, 1][: len(clip)]
    assert clip.note is not None
    assert f"what is there is used: {len(clip)} frames" in clip.note
    assert capfd.readouterr() == ("", "")


def test_end_missing_in_pieces(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = write(tmp_path / "pieces.mp4", 60, **PIECES)  # pieces of ten frames
    data = whole.read_bytes()
    assert data.count(b"moof") >= 6
    parts = data.split(b"moof")
    in_pictures = len(b"moof".join(parts[:5])) - 10
    whole.write_bytes(data[:in_pictures])
    refused(whole, "ends early: .*partial", capfd)
    clip = read(whole, frames=None, allow_partial=True)
    assert 30 <= len(clip) < 40
    assert numbers_of(clip.frames)[:30] == list(range(30))
    in_index = len(b"moof".join(parts[:5])) + 30
    whole.write_bytes(data[:in_index])
    refused(whole, "its end is missing|ends early", capfd)


def test_end_of_a_real_clip(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.mp4"
    path.write_bytes((videos / "sample_demo_1.mp4").read_bytes()[:900_000])
    with pytest.raises(ProbeError, match=r"declares 243 frames and holds 135; .*--allow-partial"):
        read(path)
    clip = read(path, frames=4, allow_partial=True)
    whole = read(videos / "sample_demo_1.mp4", times=clip.seconds)
    assert (clip.frames == whole.frames).all()
    assert clip.source_frames[-1] == 134
    assert "135 frames, 0.00 to 5.48 s" in (clip.note or "")


def test_missing_bytes(tmp_path: Path) -> None:
    for name, how in [("a.mp4", {}), ("p.mp4", PIECES), ("a.mkv", {}), ("a.avi", {}), ("a.ts", {})]:
        path = write(tmp_path / name, 20, **how)
        assert missing_bytes(path) == 0
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 7)
        assert missing_bytes(path) == (0 if name == "a.ts" else 7)


def test_junk_after_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", 20)
    with path.open("ab") as file:
        file.write(b"\xff" * 40)
    assert numbers_of(read(path, frames=None).frames) == list(range(20))


def broken(path: Path, start: float, size: int) -> Path:
    data = bytearray(path.read_bytes())
    place = int(len(data) * start)
    data[place : place + size] = np.random.default_rng(0).bytes(size)
    path.write_bytes(data)
    return path


def test_damaged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 128, 3), np.uint8)
    path = broken(write(tmp_path / "clip.mp4", list(noise), options={"g": "5"}), 0.4, 20_000)
    refused(path, r"is damaged: \d+ of its frames cannot be decoded, \d+ can; .*partial", capfd)
    clip = read(path, frames=None, allow_partial=True)
    assert 5 < len(clip) < 40
    assert (np.diff(clip.seconds) > 0).all()
    assert f"what is there is used: {len(clip)} frames" in (clip.note or "")
    few = read(path, frames=3, allow_partial=True)
    assert (few.frames == clip.frames[few.source_frames]).all()


def test_damaged_in_matroska(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = broken(write(tmp_path / "clip.mkv", 60, options={"g": "5"}), 0.3, 3000)
    refused(path, "declares|is damaged", capfd)


def test_nothing_decodes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "clip.mp4", 10, **FIRST)
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    path.write_bytes(data[:start] + b"\xff" * (len(data) - start))
    refused(path, "not one frame", capfd)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"frames": 0}, "frames must be a whole number of at least 1"),
        ({"frames": -1}, "frames must be a whole number of at least 1"),
        ({"fps": 0}, "fps must be a number above 0"),
        ({"times": []}, "times is empty"),
        ({"times": [99.0]}, "runs from 0.000 to 0.400 s"),
        ({"fps": 1, "times": [0.0]}, "exclude each other"),
        ({"stream": 5}, r"no video stream 5; choose one of: 0 \(128x64 h264\)"),
        ({"stream": -1}, "no video stream -1"),
        ({"seconds": [0.0]}, "seconds are for arrays"),
    ],
)
def test_wrong_request(how: dict, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", 10)
    with pytest.raises(ProbeError, match=message) as caught:
        read(path, **how)
    assert "\n" not in str(caught.value)


def test_good_file_still_reads(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "clip.mp4", 10)
    capfd.readouterr()
    assert number_of(read(path, frames=2).frames[1]) == 9
    assert capfd.readouterr() == ("", "")
