"""InternVL: frames as images with a number in words, patches shuffled together, tiles."""

from __future__ import annotations

import numpy as np
import pytest

from probe.models.given import Picture
from probe.models.video_model import VideoModel
from tests import tiny
from tests.families.internvl import IMAGE, build
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


def test_frames_are_between_their_marks(model: VideoModel) -> None:
    layout = model.encode(tiny.clip(3, IMAGE, IMAGE), "What moves?").layout
    text = "".join(layout.tokens)
    shown = "<img>" + "<IMG_CONTEXT>" * 9 + "</img>"
    assert f"Frame1: {shown}\nFrame2: {shown}\nFrame3: {shown}\nWhat moves?" in text
    marks = [p for p, token in enumerate(layout.tokens) if token in ("<img>", "</img>")]
    assert set(layout.role[marks]) == {"separator"}
    assert np.unique(layout.group[layout.select("video")]).tolist() == [0, 1, 2]


def test_an_image_of_one_tile_has_cells(model: VideoModel) -> None:
    shown = picture()
    x = model.encode(shown, "What is it?")
    assert x.layout.visuals[0].cells == (3, 3)
    prove(model, x, shown)


@pytest.mark.parametrize(("size", "tiles"), [((90, 200), 3), ((200, 90), 3), ((160, 170), 5)])
def test_an_image_of_tiles_has_none(model: VideoModel, size: tuple[int, int], tiles: int) -> None:
    x = model.encode(picture(*size), "What is it?")
    assert len(x.inputs["pixel_values"]) == tiles
    assert len(x.layout.select("image")) == 9 * tiles
    assert x.layout.visuals[0].cells is None
    assert (x.layout.row[x.layout.select("image")] == -1).all()


def test_two_clips_and_an_image_between(model: VideoModel) -> None:
    first, second = tiny.clip(2, IMAGE, IMAGE), tiny.clip(2, IMAGE, IMAGE, seed=1)
    shown = picture()
    x = model.encode([first, shown, second], "What moves?")
    assert [visual.label for visual in x.layout.visuals] == ["video 0", "image 0", "video 1"]
    for given in (first, shown, second):
        prove(model, x, given)
