"""Tiles, masks and rulers."""

from __future__ import annotations

import numpy as np
import pytest

from probe.errors import ProbeError
from probe.video import Clip
from probe.video.perturb_picture import crop, mask, tiles
from probe.video.perturb_ruler import ruler
from tests.tiny import clip as noise_clip


@pytest.fixture
def clip() -> Clip:
    return noise_clip(3, 41, 62)


def test_a_contiguous_tile_is_a_window(clip: Clip) -> None:
    for tile in range(6):
        row, col = divmod(tile, 3)
        window = clip.frames[:, 20 * row : 20 * row + 20, 20 * col : 20 * col + 20]
        assert np.array_equal(crop(clip, 2, 3, tile).frames, window)


def test_a_strided_tile_is_every_so_many_pixels(clip: Clip) -> None:
    for tile in range(6):
        row, col = divmod(tile, 3)
        thinned = clip.frames[:, :40, :60][:, row::2, col::3]
        assert np.array_equal(crop(clip, 2, 3, tile, "strided").frames, thinned)


@pytest.mark.parametrize("how", ["contiguous", "strided"])
def test_all_tiles(clip: Clip, how) -> None:
    many = tiles(clip, 2, 3, how)
    assert many.seconds.tolist() == np.repeat(clip.seconds, 6).tolist()
    assert many.source_frames.tolist() == np.repeat(clip.source_frames, 6).tolist()
    for tile in range(6):
        assert np.array_equal(many.frames[tile::6], crop(clip, 2, 3, tile, how).frames)
    # Every pixel is in one tile.
    assert np.array_equal(np.sort(many.frames.ravel()), np.sort(clip.frames[:, :40, :60].ravel()))


def test_mask_patches(clip: Clip) -> None:
    for share in (0.1, 0.4, 0.7, 1.0):
        other = mask(clip, share, seed=3, size=10)
        level = round(float(clip.frames.mean()))
        hidden = (other.frames == level).all(-1)
        cells = np.pad(hidden, ((0, 0), (0, 9), (0, 8)), mode="edge").reshape(3, 5, 10, 7, 10)
        cells = cells.all((2, 4))  # noise is nowhere flat, so a flat cell is masked
        assert cells.sum((1, 2)).tolist() == [round(share * 35)] * 3
        shown = ~cells.repeat(10, 1).repeat(10, 2)[:, :41, :62]
        assert np.array_equal(other.frames[shown], clip.frames[shown])
        assert share == 1 or not np.array_equal(cells[0], cells[1])
        assert np.array_equal(other.frames, mask(clip, share, seed=3, size=10).frames)
    assert not np.array_equal(mask(clip, 0.4, 1).frames, mask(clip, 0.4, 2).frames)


def test_mask_frames(clip: Clip) -> None:
    other = mask(clip, 0.3, of="frames", fill="black")
    assert sorted((frame.max() == 0) for frame in other.frames) == [False, False, True]


def test_ruler_reads_true(clip: Clip) -> None:
    big = noise_clip(2, 120, 201)
    other = ruler(big, ticks=4)
    assert (other.frames[:, 9:, 19:] == big.frames[:, 9:, 19:]).all()
    top, left = other.frames[0, 8], other.frames[0, :, 18]  # the rows of dots that are ticks
    ticks = np.flatnonzero((top == 0).all(-1))
    assert ticks[ticks >= 19].tolist() == [50, 100, 150, 200]  # quarters of 0 to 200
    ticks = np.flatnonzero((left == 0).all(-1))
    assert ticks[ticks >= 9].tolist() == [30, 60, 89, 119]
    assert ((other.frames[:, :9] == 0) | (other.frames[:, :9] == 255)).all()


def test_ruler_outside_keeps_every_pixel(clip: Clip) -> None:
    other = ruler(clip, outside=True)
    assert other.frames.shape == (3, 50, 77, 3)
    assert np.array_equal(other.frames[:, 9:, 15:], clip.frames)
    twice = ruler(clip, outside=True, scale=2)
    assert twice.frames.shape == (3, 59, 92, 3)


def test_ruler_writes_numbers() -> None:
    black = Clip.from_array(np.zeros((1, 100, 300, 3), np.uint8), fps=1)
    ink = ruler(black, ticks=2, outside=True).frames[0, 1:6, 15:, 0] == 0
    zero = np.array([[c == "#" for c in row] for row in ("###", "#.#", "#.#", "#.#", "###")])
    five = np.array([[c == "#" for c in row] for row in ("###", "#..", "###", "..#", "###")])
    assert np.array_equal(ink[:, :3], zero) and np.array_equal(ink[:, 8:11], zero)  # 0.0
    assert np.array_equal(ink[:, 153:156], five)  # 0.5, about pixel 150
    assert not ink[:, 20:140].any()


def test_neutral_is_the_clip_itself(clip: Clip) -> None:
    for same in (crop(clip, 1, 1), tiles(clip, 1, 1), mask(clip, 0), mask(clip, 0.001)):
        assert same is clip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: crop(c, tile=4), "no tile 4; there are 0 to 3"),
        (lambda c: crop(c, 1, 1, 1), "no tile 1"),
        (lambda c: crop(c, 50, 2), "50 x 2 tiles of frames of 41 x 62"),
        (lambda c: tiles(c, 0, 2), "0 x 2 tiles"),
        (lambda c: mask(c, 1.1), "share is from 0 to 1"),
        (lambda c: mask(c, 0.5, size=0), "at least 1 pixel"),
        (lambda c: ruler(c, ticks=0), "ticks is from 1 to 100"),
        (lambda c: ruler(c, scale=3), "too small for a ruler"),
        (lambda c: ruler(c, scale=0), "too small for a ruler"),
    ],
)
def test_refused(clip: Clip, change, words: str) -> None:
    with pytest.raises(ProbeError, match=words) as error:
        change(clip)
    assert "\n" not in str(error.value)
