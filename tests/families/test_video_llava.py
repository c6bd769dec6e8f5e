"""Video-LLaVA: CLS kept in every frame of a clip, and in images as the config says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.models.given import Picture
from probe.models.video_model import VideoModel
from tests import tiny
from tests.families.pixels import embeddings, prove, without_mixing
from tests.families.video_llava import IMAGE, build


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return build()


def picture(height: int = IMAGE, width: int = IMAGE) -> Picture:
    return tiny.picture(height, width)


def test_pixels_of_a_cell_reach_only_its_token(model: VideoModel) -> None:
    clip = tiny.clip(3, IMAGE, IMAGE)
    prove(model, model.encode(clip, "What moves?"), clip)


def test_cells_lie_inside_the_centre_crop(model: VideoModel) -> None:
    clip = tiny.clip(2, 126, 252)
    x = model.encode(clip, "What moves?")
    assert x.layout.visuals[0].seen == (0.0, 1.0, 0.25, 0.75)
    prove(model, x, clip, margin=0.34)


def test_each_frame_starts_with_its_cls(model: VideoModel) -> None:
    x = model.encode(tiny.clip(4, IMAGE, IMAGE), "What moves?")
    layout = x.layout
    for group, frame in enumerate(np.split(layout.select("video"), 4)):
        assert layout.row[frame].tolist() == [-1, 0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert layout.col[frame].tolist() == [-1, 0, 1, 2, 0, 1, 2, 0, 1, 2]
        assert set(layout.group[frame]) == {group}
    with torch.no_grad(), without_mixing(model):
        features = model.hf.model.get_video_features(x.inputs["pixel_values_videos"]).pooler_output
    cls = layout.select("video")[layout.row[layout.select("video")] < 0]
    merged = embeddings(model, x)[cls]
    np.testing.assert_array_equal(merged, features[:, 0].numpy())
    # Hearing of no patch, CLS is the same in every frame.
    np.testing.assert_allclose(merged, merged[:1].repeat(4, 0), atol=1e-6)


def test_an_image_is_cropped_too(model: VideoModel) -> None:
    shown = picture(252, 126)
    x = model.encode(shown, "What is it?")
    assert x.layout.visuals[0].seen == (0.25, 0.75, 0.0, 1.0)
    prove(model, x, shown, margin=0.34)


@pytest.mark.parametrize(("strategy", "tokens"), [("default", 9), ("full", 10)])
def test_images_keep_cls_as_the_config_says(strategy: str, tokens: int) -> None:
    model, shown = build(), picture()
    model.hf.config.vision_feature_select_strategy = strategy
    model.processor.vision_feature_select_strategy = strategy
    x = model.encode(shown, "What is it?")
    assert len(x.layout.select("image")) == tokens
    assert (x.layout.row[x.layout.select("image")] < 0).sum() == tokens - 9
    prove(model, x, shown)


def test_a_clip_and_an_image(model: VideoModel) -> None:
    clip, shown = tiny.clip(2, IMAGE, IMAGE), picture()
    x = model.encode([clip, shown], "What moves?")
    prove(model, x, clip)
    prove(model, x, shown)
