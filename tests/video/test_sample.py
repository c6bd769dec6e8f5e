"""Which frames are taken."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest

from probe.errors import ProbeError
from probe.video.sample import at_rate, at_times, evenly, pick

SECONDS = np.arange(100) / 25


@pytest.mark.parametrize(
    ("count", "frames", "expected"),
    [
        (10, 1, [0]),
        (10, 2, [0, 9]),
        (10, 4, [0, 3, 6, 9]),
        (100, 8, [0, 14, 28, 42, 56, 70, 84, 99]),
        (5, 5, [0, 1, 2, 3, 4]),
        (1, 1, [0]),
    ],
)
def test_evenly(count: int, frames: int, expected: list[int]) -> None:
    index, note = evenly(count, frames)
    assert index.tolist() == expected
    assert note is None


def test_evenly_never_twice() -> None:
    for count in range(1, 60):
        for frames in range(1, count + 1):
            index, _ = evenly(count, frames)
            assert len(index) == frames
            assert (np.diff(index) > 0).all()


def test_more_than_there_are() -> None:
    index, note = evenly(10, 16)
    assert index.tolist() == list(range(10))
    assert note == "16 frames asked, the clip has 10: all are used"


@pytest.mark.parametrize("frames", [0, -3, 2.5, True, "4"])
def test_wrong_number_of_frames(frames: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users have it
    with pytest.raises(ProbeError, match="at least 1"):
        evenly(10, frames)


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (25, range(100)),
        (5, range(0, 100, 5)),
        (1, [0, 25, 50, 75]),
        (0.1, [0]),
        (10, [0, 2, 5, 7] + [10 * k + r for k in range(1, 10) for r in (0, 2, 5, 7)]),
    ],
)
def test_at_rate(fps: float, expected: list[int]) -> None:
    index, note = at_rate(SECONDS + 3.0, 7.0, fps)
    assert index.tolist() == list(expected)
    assert note is None


@pytest.mark.parametrize("fps", [5, 12.5, 25])
def test_at_rate_with_times_in_milliseconds(fps: float) -> None:
    seconds = np.round(np.arange(75) / 24.9750249, 3)  # as Matroska stores them
    exact = np.arange(75) / 24.9750249
    assert at_rate(seconds, 3.003, fps)[0].tolist() == at_rate(exact, 3.003, fps)[0].tolist()


def test_at_rate_uneven() -> None:
    index, note = at_rate(np.array([0.0, 0.01, 0.02, 2.0]), 2.5, 1.0)
    assert index.tolist() == [0, 2, 3]  # at 0, 1 and 2 s
    assert note is None


def test_faster_than_the_clip() -> None:
    index, note = at_rate(SECONDS, 4.0, 50)
    assert index.tolist() == list(range(100))
    assert note == "fps=50 asks for 100 frames a second time: each is used once"
    assert at_rate(SECONDS, 4.0, 1e12)[0].tolist() == list(range(100))


@pytest.mark.parametrize("fps", [0, -1.0, float("nan"), float("inf")])
def test_wrong_rate(fps: float) -> None:
    with pytest.raises(ProbeError, match="fps"):
        at_rate(SECONDS, 4.0, fps)


def test_at_times() -> None:
    index, note = at_times(SECONDS, 4.0, [0.0, 0.039, 0.04, 0.0406, 3.99])
    assert index.tolist() == [0, 1, 99]  # 0.039 is still frame 0
    assert note == "2 of the 5 times show a frame again: each is used once"
    assert at_times(SECONDS, 4.0, [0.0399999])[0].tolist() == [1]  # six digits of 1/25
    assert at_times(SECONDS, 4.0, [2.0, 1.0])[0].tolist() == [25, 50]


@pytest.mark.parametrize("times", [[-0.1], [1.0, 4.0], [float("nan")]])
def test_times_outside(times: list[float]) -> None:
    with pytest.raises(ProbeError, match=r"runs from 0\.000 to 4\.000 s"):
        at_times(SECONDS, 4.0, times)


def test_pick() -> None:
    assert pick(SECONDS, 4.0, frames=None)[0].tolist() == list(range(100))
    assert pick(SECONDS, 4.0, frames=0, fps=1.0)[0].tolist() == [0, 25, 50, 75]
    with pytest.raises(ProbeError, match="exclude each other"):
        pick(SECONDS, 4.0, fps=1, times=[0.0])
    with pytest.raises(ProbeError, match="times is empty"):
        pick(SECONDS, 4.0, times=[])
