"""Not a video at all, or a request that cannot be met."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from probe.errors import ProbeError
from probe.video import read
from tests.video.refused import refused
from tests.video.write import number_of, write, write_sound


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
