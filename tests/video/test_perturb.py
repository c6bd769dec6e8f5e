"""Changes to what is shown and when."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest

from probe.errors import ProbeError
from probe.video import Clip
from probe.video.perturb import blank, chunks, drop, freeze, keep, noise, reverse, shuffle


@pytest.fixture
def clip() -> Clip:
    frames = np.zeros((6, 4, 5, 3), np.uint8)
    frames += (10 * np.arange(6, dtype=np.uint8))[:, None, None, None]
    frames[..., 0] += 100  # reddish
    return Clip.from_array(frames, seconds=[0, 1, 2, 4, 5, 8])


def shown(clip: Clip) -> list[int]:
    """Which original frame is at each place, read off the pixels."""
    return (clip.frames[:, 0, 0, 1] // 10).tolist()


def same_times(clip: Clip, other: Clip) -> bool:
    return clip.seconds.tolist() == other.seconds.tolist()


def test_blank(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = blank(clip)
    assert (grey.frames == round(clip.frames.mean())).all()
    assert grey.frames.shape == clip.frames.shape
    assert (blank(clip, "black").frames == 0).all()
    assert same_times(grey, clip)
    assert grey.note == "frames grey"
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users have it
    with pytest.raises(ProbeError, match="'grey' or 'black'"):
        blank(clip, "red")


def test_shuffle(clip: Clip) -> None:
    for seed in range(30):
        other = shuffle(clip, seed)
        assert sorted(shown(other)) == list(range(6))
        assert shown(other) != list(range(6))
        assert shown(other) == other.source_frames.tolist()
        assert same_times(other, clip)
    assert shown(shuffle(clip, 3)) == shown(shuffle(clip, 3))
    assert len({tuple(shown(shuffle(clip, seed))) for seed in range(30)}) > 20
    assert shown(shuffle(keep(clip, [0, 1]))) == [1, 0]
    with pytest.raises(ProbeError, match="one frame cannot be shuffled"):
        shuffle(keep(clip, 0))


def test_reverse(clip: Clip) -> None:
    other = reverse(clip)
    assert shown(other) == other.source_frames.tolist() == [5, 4, 3, 2, 1, 0]
    assert same_times(other, clip)
    assert (reverse(other).frames == clip.frames).all()


def test_freeze(clip: Clip) -> None:
    other = freeze(clip, 4)
    assert shown(other) == other.source_frames.tolist() == [4] * 6
    assert same_times(other, clip)


def test_drop_and_keep(clip: Clip) -> None:
    left = drop(clip, [1, 3])
    assert shown(left) == left.source_frames.tolist() == [0, 2, 4, 5]
    assert left.seconds.tolist() == [0, 2, 5, 8]
    kept = keep(clip, [5, 4, 2, 0])
    assert (kept.frames == left.frames).all()
    assert same_times(kept, left)
    assert left.note == "frames dropped: 1, 3"
    assert kept.note == "frames kept: 0, 2, 4, 5"
    assert shown(drop(clip, 0)) == [1, 2, 3, 4, 5]
    assert shown(keep(clip, 3)) == [3]


def test_noise(clip: Clip) -> None:
    other = noise(clip, seed=1)
    assert (other.frames == noise(clip, seed=1).frames).all()
    assert (other.frames != noise(clip, seed=2).frames).mean() > 0.9
    assert (other.frames[0] != other.frames[1]).mean() > 0.9
    bare = blank(clip, "black")
    assert (noise(bare, seed=1).frames == other.frames).all()  # nothing of the clip is left
    assert 100 < other.frames.mean() < 155
    assert np.abs(noise(clip, 1, 0.1).frames - clip.frames.astype(float)).max() < 27
    assert same_times(other, clip)


def test_pure(clip: Clip) -> None:
    before = clip.frames.copy()
    for change in (blank, noise, shuffle, reverse, freeze):
        change(clip)
    assert (clip.frames == before).all()
    assert clip.note is None


def test_notes_add_up(clip: Clip) -> None:
    assert freeze(reverse(clip)).note == "frames reversed; frozen at frame 0"


def test_wrong_frames(clip: Clip) -> None:
    for change in (freeze, drop, keep):
        with pytest.raises(ProbeError, match="no frame 6; there are 0 to 5"):
            change(clip, 6)
        with pytest.raises(ProbeError, match="no frame -1"):
            change(clip, -1)
    with pytest.raises(ProbeError, match="would leave no frame"):
        drop(clip, range(6))
    with pytest.raises(ProbeError, match="at least one"):
        keep(clip, [])
    with pytest.raises(ProbeError, match="whole numbers"):
        keep(clip, np.array([0.5]))
    for amount in (0, 1.1):
        with pytest.raises(ProbeError, match="amount"):
            noise(clip, amount=amount)


def test_chunks() -> None:
    def lengths(*how) -> list[int]:
        parts = chunks(*how)
        assert np.concatenate(parts).tolist() == list(range(how[0]))
        return [len(part) for part in parts]

    assert lengths(16, 4) == [4] * 4
    assert lengths(16, 4, 2) == [4] * 4
    assert lengths(10, 4) == [2] * 5  # as published: a chunk is 10 // 4 frames long
    assert lengths(5, 2) == [2, 2, 1]
    assert lengths(6, 16) == lengths(6, None) == [1] * 6
    assert lengths(7, 1) == lengths(7, 1, 2) == [7]
    assert lengths(7, None, 2) == [2, 2, 2, 1]
    for wrong in ((4, 0), (4, -1), (4, 2, 0)):
        with pytest.raises(ProbeError, match="whole number of at least 1"):
            chunks(*wrong)


def test_magnitudes(clip: Clip) -> None:
    assert shown(reverse(clip, magnitude=2)) == [3, 4, 5, 0, 1, 2]
    assert shown(reverse(clip, magnitude=3)) == [4, 5, 2, 3, 0, 1]
    assert shown(reverse(clip, magnitude=3, unit=2)) == [4, 5, 2, 3, 0, 1]
    assert shown(reverse(clip, magnitude=8)) == shown(reverse(clip))
    assert same_times(reverse(clip, magnitude=2), clip)
    for magnitude in (2, 3, 6):
        twice = reverse(reverse(clip, magnitude), magnitude)
        assert (twice.frames == clip.frames).all()
    for seed in range(20):
        moved = shown(shuffle(clip, seed, magnitude=3))
        assert moved != list(range(6))
        assert sorted(moved[::2]) == [0, 2, 4]  # pairs stay together
        assert [n + 1 for n in moved[::2]] == moved[1::2]
        left = shown(drop(clip, magnitude=2, seed=seed))
        assert len(left) == 3 and left == sorted(left)
        pair = shown(drop(clip, magnitude=3, unit=2, seed=seed))
        assert pair in ([0, 1], [2, 3], [4, 5])
    assert len(drop(clip, magnitude=100)) == 1
    assert len({tuple(shown(drop(clip, magnitude=2, seed=s))) for s in range(20)}) > 5


def test_neutral_is_the_clip_itself(clip: Clip) -> None:
    one = keep(clip, 2)
    for same in (
        keep(clip, range(6)),
        drop(clip, []),
        drop(clip, magnitude=1),
        reverse(clip, magnitude=1),
        shuffle(clip, magnitude=1),
        blank(clip, frames=[]),
        noise(clip, frames=[]),
    ):
        assert same is clip
    assert reverse(one) is one and freeze(one) is one and drop(one, magnitude=4) is one


def test_some_frames(clip: Clip) -> None:
    grey = blank(clip, "black", frames=[1, 4])
    assert [int(frame.max()) for frame in grey.frames][1::3] == [0, 0]
    assert (grey.frames[[0, 2, 3, 5]] == clip.frames[[0, 2, 3, 5]]).all()
    some, every = noise(clip, 7, frames=3), noise(clip, 7)
    assert (some.frames[3] == every.frames[3]).all()
    assert (some.frames[[0, 1, 2, 4, 5]] == clip.frames[[0, 1, 2, 4, 5]]).all()
    for change in (blank, noise):
        with pytest.raises(ProbeError, match="no frame 6"):
            change(clip, frames=6)


def test_drop_takes_one_of_two(clip: Clip) -> None:
    for given in ({}, {"frames": 1, "magnitude": 2}):
        with pytest.raises(ProbeError, match="frames or a magnitude"):
            drop(clip, **given)
    with pytest.raises(ProbeError, match="magnitude is a whole number"):
        drop(clip, magnitude=0)
