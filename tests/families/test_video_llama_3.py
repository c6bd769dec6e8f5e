"""VideoLLaMA3: frames of any shape behind their times, without tokens that stay the same."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from probe.models.given import Picture
from probe.models.video_model import VideoModel
from probe.models.visual import Visual, VisualGrid
from tests import tiny
from tests.families import _written as written
from tests.families.pixels import prove
from tests.families.video_llama_3 import build


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return build()


def picture(height: int = 84, width: int = 112) -> Picture:
    return tiny.picture(height, width)


@pytest.mark.parametrize("size", [(84, 112), (112, 56)])
def test_pixels_of_a_cell_reach_only_its_token(model: VideoModel, size: tuple[int, int]) -> None:
    clip = tiny.clip(3, *size)
    x = model.encode(clip, "What moves?")
    assert x.layout.grid == (size[0] // 28, size[1] // 28)
    prove(model, x, clip)


def test_resized_frames() -> None:
    model = build()
    model.processor.video_processor.size = {"shortest_edge": 28**2, "longest_edge": 2 * 84 * 140}
    clip = tiny.clip(2, 360, 600)
    x = model.encode(clip, "What moves?")
    assert x.layout.grid == (3, 5)
    prove(model, x, clip, margin=0.34)


@pytest.mark.parametrize("merge", [3, 4])
def test_a_token_reads_the_patches_next_to_its_centre(merge: int) -> None:
    model = build()
    model.processor.video_processor.merge_size = merge
    clip = tiny.clip(2, 14 * 2 * merge, 14 * 3 * merge)
    x = model.encode(clip, "What moves?")
    assert x.layout.grid == (2, 3)
    grid = x.layout.visuals[0].grid
    assert grid is not None
    patches = (grid.row_edges * 2 * merge).round().astype(int).tolist()
    assert patches == {3: [[1, 2], [4, 5]], 4: [[1, 3], [5, 7]]}[merge]
    prove(model, x, clip)


def test_the_text_gives_the_true_seconds(model: VideoModel) -> None:
    clip = written.uneven(84, 112)
    x = model.encode(clip, "What moves?")
    found = written.seconds(x, lambda text: float(re.findall(r"Time (\d+\.\d)s:", text)[-1]))
    np.testing.assert_allclose(found, clip.seconds, atol=0.05)
    assert model.family.timestamps is not None
    expected = model.family.timestamps(x.layout.visuals[0], clip.seconds)
    np.testing.assert_array_equal(found, expected)


def test_tokens_that_stay_the_same_are_left_out(model: VideoModel) -> None:
    clip = tiny.clip(4, 84, 112)
    pixels = clip.frames.copy()
    pixels[:, :, :56] = pixels[0, :, :56]  # the left half stands still
    pixels[3] = pixels[2]  # the last frame repeats the third
    layout = model.encode(replace(clip, frames=pixels), "What moves?").layout
    kept = [layout.select(f"frame {frame}") for frame in range(4)]
    assert [len(frame) for frame in kept] == [12, 6, 6, 1]
    assert set(layout.col[kept[1]]) == set(layout.col[kept[2]]) == {2, 3}
    assert layout.row[kept[1]].tolist() == [0, 0, 1, 1, 2, 2]
    assert (layout.row[kept[3]], layout.col[kept[3]]) == ([0], [0])
    painted = layout.paint(np.ones(len(layout)), size=(3, 4))
    np.testing.assert_array_equal(np.isnan(painted).sum((1, 2)), [0, 6, 6, 11])


def test_clips_of_different_lengths_and_an_image(model: VideoModel) -> None:
    first, second = tiny.clip(3, 84, 56), tiny.clip(2, 56, 84, seed=1)
    shown = picture()
    x = model.encode([first, shown, second], "What moves?")
    for given in (first, shown, second):
        prove(model, x, given)


def swapped(grid: VisualGrid) -> VisualGrid:
    cols = len(grid.col_edges)
    order = np.arange(len(grid.row)).reshape(-1, len(grid.row_edges), cols).swapaxes(1, 2).ravel()
    return replace(grid, row=grid.row[order], col=grid.col[order])


BROKEN = {
    "rows and columns swapped": swapped,
    "a cell too far": lambda grid: replace(
        grid, row=np.roll(grid.row, 1), col=np.roll(grid.col, 1)
    ),
    "a frame late": lambda grid: replace(grid, group=np.roll(grid.group, 12)),
    "upside down": lambda grid: replace(grid, row_edges=grid.row_edges[::-1]),
    "cells too small": lambda grid: replace(grid, col_edges=grid.col_edges * 0.9),
}


@pytest.mark.parametrize("error", BROKEN)
def test_the_proof_finds_a_wrong_layout(model: VideoModel, error: str) -> None:
    def wrong(config: Any, inputs: dict[str, Any], visual: Visual) -> VisualGrid:
        return BROKEN[error](model.family.grid(config, inputs, visual))

    broken = VideoModel(model.hf, model.processor, replace(model.family, grid=wrong), error)
    clip = tiny.clip(3, 84, 112)
    x = broken.encode(clip, "What moves?")
    with pytest.raises(AssertionError, match="frame"):
        prove(broken, x, clip)
