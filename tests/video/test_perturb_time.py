"""Other numbers of frames, and frames moved in blocks."""

from __future__ import annotations

import numpy as np
import pytest

from probe.errors import ProbeError
from probe.video import Clip
from probe.video.perturb_time import (
    interleave,
    loop,
    resample,
    single,
    subsample,
    swap_halves,
    window,
)
from tests.tiny import clip as noise_clip

SECONDS = [0.0, 1.0, 2.0, 4.0, 5.0, 8.0, 9.5]


@pytest.fixture
def clip() -> Clip:
    return Clip.from_array(noise_clip(7).frames, seconds=SECONDS)


def shows(clip: Clip, other: Clip, numbers: list[int]) -> bool:
    """The frames of these numbers, named as such."""
    right = np.array_equal(other.frames, clip.frames[numbers])
    return right and other.source_frames.tolist() == numbers


def test_fewer(clip: Clip) -> None:
    for other, numbers in (
        (single(clip, 3), [3]),
        (window(clip, 2, 3), [2, 3, 4]),
        (window(clip, 4), [4, 5, 6]),
        (subsample(clip, 3), [0, 3, 6]),
        (subsample(clip, 3, 1), [1, 4]),
        (resample(clip, 4), [0, 2, 4, 6]),
        (resample(clip, 1), [0]),
        (resample(clip, 3), [0, 3, 6]),
        (resample(clip, 5), [0, 2, 3, 5, 6]),
    ):
        assert shows(clip, other, numbers)
        assert other.seconds.tolist() == [SECONDS[n] for n in numbers]


def test_more(clip: Clip) -> None:
    other = resample(clip, 13)
    assert shows(clip, other, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6])
    assert other.seconds[::2].tolist() == SECONDS
    assert other.seconds[1::2].tolist() == [0.5, 1.5, 3.0, 4.5, 6.5, 8.75]
    assert other.note == "7 frames resampled to 13"


def test_order(clip: Clip) -> None:
    for other, numbers in (
        (loop(clip, 2), [0, 1, 2, 3, 0, 1, 2]),
        (loop(clip, 3), [0, 1, 2, 0, 1, 2, 0]),
        (loop(clip, 99), [0] * 7),
        (swap_halves(clip), [4, 5, 6, 3, 0, 1, 2]),
        (swap_halves(window(clip, 0, 4)), [2, 3, 0, 1]),
    ):
        assert shows(clip, other, numbers)
        assert other.seconds.tolist() == SECONDS[: len(numbers)]
    for start in (clip, window(clip, 0, 4)):
        assert np.array_equal(swap_halves(swap_halves(start)).frames, start.frames)


def test_interleave(clip: Clip) -> None:
    eight = noise_clip(8)
    assert interleave(eight, 2, 2).source_frames.tolist() == [0, 6, 3, 9, 12, 18, 15, 21]
    assert np.array_equal(interleave(eight, 4, 2).frames, eight.frames[[0, 4, 1, 5, 2, 6, 3, 7]])
    # The definition: every part on its own in groups, then the groups by their first frames.
    for parts, size in ((2, 2), (4, 2), (2, 4), (1, 2), (2, 1)):
        groups = [
            part[first : first + size]
            for part in (list(range(j, 8, parts)) for j in range(parts))
            for first in range(0, len(part), size)
        ]
        order = [n for group in sorted(groups) for n in group]
        assert np.array_equal(interleave(eight, parts, size).frames, eight.frames[order])
    with pytest.raises(ProbeError, match="7 frames do not divide into 2 parts of whole groups"):
        interleave(clip, 2, 2)


def test_neutral_is_the_clip_itself(clip: Clip) -> None:
    one = single(clip, 1)
    for same in (window(clip), subsample(clip, 1), resample(clip, 7), loop(clip, 1)):
        assert same is clip
    for same in (swap_halves(one), loop(one, 5), resample(one, 1)):
        assert same is one
    assert interleave(clip, 1, 2) is clip and interleave(clip, 3, 1) is clip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: single(c, 7), "no frame 7; there are 0 to 6"),
        (lambda c: window(c, 5, 3), "no frames 5 to 7"),
        (lambda c: window(c, 0, 0), "count is a whole number"),
        (lambda c: window(c, -1), "no frames -1"),
        (lambda c: subsample(c, 0), "every is a whole number"),
        (lambda c: subsample(c, 2, 7), "no frame 7"),
        (lambda c: resample(c, 0), "count is a whole number"),
        (lambda c: loop(c, 0), "times is a whole number"),
        (lambda c: interleave(c, 0, 2), "parts is a whole number"),
    ],
)
def test_refused(clip: Clip, change, words: str) -> None:
    with pytest.raises(ProbeError, match=words) as error:
        change(clip)
    assert "\n" not in str(error.value)
