"""Arrays as videos, and Clip itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.errors import ProbeError
from probe.video import Clip, read


def ramp(count: int = 6) -> np.ndarray:
    """Frame i is filled with 10 i."""
    return (
        np.full((count, 4, 5, 3), 10, np.uint8)
        * np.arange(count, dtype=np.uint8)[:, None, None, None]
    )


def test_taken_as_it_is() -> None:
    clip = read(ramp(), seconds=[0, 1, 2, 4, 5, 8], frames=6)
    assert (clip.frames == ramp()).all()
    assert clip.seconds.tolist() == [0, 1, 2, 4, 5, 8]
    assert clip.source_frames.tolist() == [0, 1, 2, 3, 4, 5]
    assert clip.source == "array"
    assert clip.duration == 9.0  # the last frame stays for the usual step
    assert clip.fps == pytest.approx(5 / 8)
    assert clip.note is None
    assert len(clip) == 6


def test_sampled() -> None:
    clip = read(ramp(), frames=3, seconds=np.arange(6) / 2)
    assert clip.source_frames.tolist() == [0, 2, 5]
    assert clip.frames[:, 0, 0, 0].tolist() == [0, 20, 50]
    assert clip.seconds.tolist() == [0.0, 1.0, 2.5]
    assert read(ramp(), times=[3.2]).source_frames.tolist() == [3]
    assert read(ramp(), fps=0.5).source_frames.tolist() == [0, 2, 4]


def test_no_times() -> None:
    clip = read(ramp())
    assert clip.seconds.tolist() == [0, 1, 2, 3, 4, 5]
    assert "one frame a second is assumed" in (clip.note or "")
    assert "16 frames asked, the clip has 6" in (clip.note or "")
    assert Clip.from_array(ramp(), fps=25).seconds[-1] == 0.2
    assert Clip.from_array(ramp(), fps=25).note is None


def test_tensor() -> None:
    clip = read(torch.from_numpy(ramp()), frames=6)
    assert isinstance(clip.frames, np.ndarray)
    assert (clip.frames == ramp()).all()


def test_one_frame() -> None:
    clip = read(ramp(1), frames=1, seconds=[3.0])
    assert (clip.seconds.tolist(), clip.duration, clip.fps) == ([3.0], 1.0, 1.0)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (ramp().astype(np.float32), "must be uint8"),
        (ramp()[0], r"must be uint8 of shape \[time, height, width, 3\]"),
        (ramp().transpose(0, 3, 1, 2), "move the colours to the end"),
        (ramp()[..., :1], "must be uint8 of shape"),
        (ramp()[:0], "holds no frames"),
        ([1, 2], "not list"),
        (None, "not NoneType"),
    ],
)
def test_wrong_array(array: object, message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        read(array)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"seconds": [0, 1]}, "6 frames but 2 seconds"),
        ({"seconds": [0, 1, 2, 2, 3, 4]}, "seconds must increase"),
        ({"seconds": [0, 1, 2, 3, 4, float("nan")]}, "finite"),
        ({"stream": 0}, "stream is for files"),
        ({"frames": 0}, "at least 1"),
        ({"times": [6.5]}, "runs from 0.000 to 6.000 s"),
    ],
)
def test_wrong_request(how: dict, message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        read(ramp(), **how)


def test_clip_refuses_what_does_not_fit() -> None:
    with pytest.raises(ProbeError, match="fps must be above 0"):
        Clip.from_array(ramp(), fps=0)
    with pytest.raises(ProbeError, match="not both"):
        Clip.from_array(ramp(), seconds=range(6), fps=1)
