"""Perception LM: pooled frames without CLS, images as one picture or in tiles."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from probe import ProbeError
from probe.models.given import Picture
from probe.models.video_model import VideoModel
from tests import tiny
from tests.families import perception_lm
from tests.families.perception_lm import IMAGE, build
from tests.families.pixels import prove


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return build()


def picture(height: int = IMAGE, width: int = IMAGE) -> Picture:
    return tiny.picture(height, width)


def test_pixels_of_a_cell_reach_only_its_token(model: VideoModel) -> None:
    clip = tiny.clip(3, IMAGE, IMAGE)
    prove(model, model.encode(clip, "What moves?"), clip)


def test_resized_frames(model: VideoModel) -> None:
    clip = tiny.clip(2, 252, 504)
    prove(model, model.encode(clip, "What moves?"), clip, margin=0.34)


def test_pooling_windows_overlap_where_patches_do_not_divide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(perception_lm, "IMAGE", 70)  # 5 x 5 patches to 2 x 2 tokens
    model, clip = build(), tiny.clip(2, 70, 70)
    x = model.encode(clip, "What moves?")
    grid = x.layout.visuals[0].grid
    assert grid is not None
    np.testing.assert_allclose(grid.row_edges, [[0, 0.6], [0.4, 1]])
    prove(model, x, clip)


def test_a_tower_without_a_patch_size_is_refused(model: VideoModel) -> None:
    x = model.encode(tiny.clip(1, IMAGE, IMAGE), "What moves?")
    config = copy.deepcopy(model.hf.config)
    config.vision_config.architecture = "resnet50"
    with pytest.raises(ProbeError, match=r"resnet50.*does not say how large its patches are"):
        model.family.grid(config, x.inputs, x.layout.visuals[0])


def test_cls_does_not_get_to_the_decoder(model: VideoModel) -> None:
    x = model.encode(tiny.clip(3, IMAGE, IMAGE), "What moves?")
    assert model.hf.config.vision_use_cls_token
    assert model.vision.timm_model.cls_token is not None
    assert len(x.layout.select("video")) == 3 * 9
    assert (x.layout.row[x.layout.select("video")] >= 0).all()


@pytest.mark.parametrize(("size", "tiles"), [((84, 84), 5), ((90, 200), 3), ((200, 90), 3)])
def test_an_image_of_tiles_has_no_cells(
    model: VideoModel, size: tuple[int, int], tiles: int
) -> None:
    x = model.encode(picture(*size), "What is it?")
    assert x.inputs["pixel_values"].shape[1] == tiles
    assert len(x.layout.select("image")) == 9 * tiles
    assert x.layout.visuals[0].cells is None


def test_an_image_as_one_picture_beside_a_clip() -> None:
    model = build()
    model.processor.image_processor.vision_input_type = "vanilla"
    clip, shown = tiny.clip(2, IMAGE, IMAGE), picture()
    x = model.encode([clip, shown], "What moves?")
    prove(model, x, clip)
    prove(model, x, shown)
