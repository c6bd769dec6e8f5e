"""LLaVA-NeXT-Video: pooled frames without CLS, the centre crop, images in tiles with newlines."""

from __future__ import annotations

import numpy as np
import pytest

from probe.models.given import Picture
from probe.models.video_model import VideoModel
from tests import tiny
from tests.families.llava_next_video import IMAGE, build
from tests.families.pixels import embeddings, prove


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return build()


def test_pixels_of_a_cell_reach_only_its_token(model: VideoModel) -> None:
    clip = tiny.clip(3, IMAGE, IMAGE)
    prove(model, model.encode(clip, "What moves?"), clip)


@pytest.mark.parametrize("size", [(252, 504), (504, 252)])
def test_cells_lie_inside_the_centre_crop(model: VideoModel, size: tuple[int, int]) -> None:
    clip = tiny.clip(2, *size)
    x = model.encode(clip, "What moves?")
    grid = x.layout.visuals[0].grid
    assert grid is not None
    cut, kept = (grid.col_edges, grid.row_edges)[:: 1 if size[1] > size[0] else -1]
    np.testing.assert_allclose([cut[0, 0], cut[-1, 1]], [0.25, 0.75])
    np.testing.assert_allclose([kept[0, 0], kept[-1, 1]], [0, 1])
    prove(model, x, clip, margin=0.34)


def test_two_clips(model: VideoModel) -> None:
    first, second = tiny.clip(2, IMAGE, IMAGE), tiny.clip(2, IMAGE, IMAGE, seed=1)
    x = model.encode([first, second], "What moves?")
    assert x.layout.frames == ((0,), (1,), (2,), (3,))
    prove(model, x, second)


@pytest.mark.parametrize("size", [(84, 84), (90, 200), (200, 90), (70, 90)])
def test_newlines_of_an_image_are_where_the_model_puts_them(
    model: VideoModel, size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    x = model.encode(Picture(pixels), "What is it?")
    newline = model.hf.model.image_newline.detach().numpy()
    found = (embeddings(model, x) == newline).all(1)
    np.testing.assert_array_equal(found, x.layout.role == "newline")
    assert found.any()
    # The picture of the whole is every patch, without CLS.
    assert x.layout.role[x.layout.visual == 0].tolist().index("newline") >= 36
    assert x.layout.visuals[0].cells is None
