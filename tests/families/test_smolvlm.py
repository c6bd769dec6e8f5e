"""SmolVLM: frames behind their times in words, a clip beside an image, tiles."""

from __future__ import annotations

import re

import numpy as np
import pytest

from probe.models.given import Picture
from probe.models.video_model import VideoModel
from tests import tiny
from tests.families import _written as written
from tests.families.pixels import prove
from tests.families.smolvlm import IMAGE, build


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


def test_the_text_gives_the_true_seconds(model: VideoModel) -> None:
    clip = written.uneven()
    x = model.encode(clip, "What moves?")

    def read(text: str) -> float:
        minutes, seconds = re.findall(r"Frame from (\d\d):(\d\d):", text)[-1]
        return 60 * int(minutes) + int(seconds)

    assert written.seconds(x, read) == [0, 0, 1, 2, 72]
    assert model.family.timestamps is not None
    expected = model.family.timestamps(x.layout.visuals[0], clip.seconds)
    np.testing.assert_array_equal(expected, [0, 0, 1, 2, 72])


def test_the_text_gives_the_true_duration(model: VideoModel) -> None:
    layout = model.encode(written.uneven(), "What moves?").layout
    assert "five frames from a 0:01:12 [H:MM:SS] video" in "".join(layout.tokens)


def test_clips_of_different_lengths(model: VideoModel) -> None:
    first, second = tiny.clip(3, IMAGE, IMAGE), tiny.clip(2, IMAGE, IMAGE, seed=1)
    x = model.encode([first, second], "What moves?")
    for given in (first, second):
        prove(model, x, given)


@pytest.mark.parametrize(("size", "tiles"), [((84, 168), 3), ((84, 84), 5)])
def test_an_image_of_tiles_has_no_cells(
    model: VideoModel, size: tuple[int, int], tiles: int
) -> None:
    x = model.encode(picture(*size), "What is it?")
    assert x.inputs["pixel_values"].shape[1] == tiles
    assert len(x.layout.select("image")) == 9 * tiles
    assert x.layout.visuals[0].cells is None


@pytest.mark.parametrize("first", ["clip", "image"])
def test_a_clip_and_an_image(first: str) -> None:
    model = build()
    model.processor.image_processor.do_image_splitting = False
    model.processor.image_processor.size = {"longest_edge": IMAGE}
    clip, shown = tiny.clip(2, IMAGE, IMAGE), picture()
    x = model.encode([clip, shown] if first == "clip" else [shown, clip], "What moves?")
    prove(model, x, clip)
    prove(model, x, shown)
