"""Files that were whole once: their end is missing, their middle is damaged."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from probe.errors import ProbeError
from probe.video import decode, read
from probe.video.container import opened
from probe.video.extent import missing_bytes
from tests.video.refused import refused
from tests.video.write import cut, numbers_of, write

FIRST = {"container": {"movflags": "faststart"}}  # the index before the pictures
PIECES = {"options": {"g": "10"}, "container": {"movflags": "frag_keyframe+empty_moov"}}


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


def test_damage_that_the_decoder_covers_up(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "covered.mp4"
    data = bytearray((videos / "bt709_full_range.mp4").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(
        place * 7919 % 256 for place in range(middle, middle + 3000)
    )
    path.write_bytes(data)
    with pytest.raises(ProbeError, match="is damaged: 1 of its frames cannot be decoded, 29 can"):
        read(path)
    clip = read(path, frames=None, allow_partial=True)
    whole = read(videos / "bt709_full_range.mp4", frames=None)
    assert len(clip) == 29
    assert set(clip.seconds) < set(whole.seconds)


def test_one_thread(tmp_path: Path) -> None:
    """On several, whether a covered-up frame is marked depends on which thread is first."""
    with opened(write(tmp_path / "clip.mp4", 3)) as (_, video):
        next(video.container.decode(video))
        assert (video.thread_type.name, video.codec_context.thread_count) == ("NONE", 1)


def test_begins_in_the_middle(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = write(tmp_path / "clip.ts", 40, codec="mpeg2video", options={"g": "10"})
    path = tmp_path / "tail.ts"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(source.streams.video[0])):
            if number >= 4 and packet.size:
                packet.stream = stream
                target.mux(packet)
    refused(path, "begins in the middle: its first 6 frames", capfd)
    clip = read(path, frames=None, allow_partial=True)
    assert numbers_of(clip.frames) == list(range(10, 40))
    assert clip.seconds[0] == pytest.approx(read(whole, frames=None).seconds[10], abs=0.05)


def test_damaged_in_matroska(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = broken(write(tmp_path / "clip.mkv", 60, options={"g": "5"}), 0.3, 3000)
    refused(path, "declares|is damaged", capfd)


def test_nothing_decodes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "clip.mp4", 10, **FIRST)
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    path.write_bytes(data[:start] + b"\xff" * (len(data) - start))
    refused(path, "not one frame", capfd)


def test_decoder_that_gives_up_silently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "clip.mp4", 30)
    monkeypatch.setattr(decode, "_strict", lambda *_, **__: iter(()))
    assert len(read(path, frames=None)) == 30  # one by one, without the quick way
    every = decode.good_frames
    monkeypatch.setattr(decode, "good_frames", lambda *given: islice(every(*given), 20))
    with pytest.raises(ProbeError, match=r"frames up to 1\.20 s, they decode to 0\.80"):
        read(path)
    assert len(read(path, frames=None, allow_partial=True)) == 20
