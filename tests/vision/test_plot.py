"""Patches painted on their frames, and figures that say what they show."""

from __future__ import annotations

import numpy as np
import pytest

from probe.capture.vision_norms import VisionNorms
from probe.capture.vision_similarity import VisionSimilarity
from probe.errors import ProbeError
from probe.plot.style import save
from probe.plot.vision import layer_similarity, paint_patches, patch_strip
from tests import tiny
from tests.families import models


def test_a_patch_is_painted_where_it_is() -> None:
    model = models.build("qwen2_5_vl")
    clip = tiny.clip(4, 32, 64)
    x = model.encode(clip, "What?", frames=None)
    norms = model.run(x, [VisionNorms()]).data.vision_norms.sel(vision_layer=1)
    painted = paint_patches(norms, x.layout)
    assert painted.shape == (4, 32, 64)
    for group, cell in ((0, 13), (1, 31)):
        row, col = divmod(cell, 8)  # 4 x 8 patches of 8 pixels
        part = painted[2 * group : 2 * group + 2, 8 * row : 8 * row + 8, 8 * col : 8 * col + 8]
        assert (part == norms.values[group, cell].astype(np.float64)).all()


def test_what_was_cropped_away_has_no_value() -> None:
    model = models.build("llava_next_video")
    x = model.encode(tiny.clip(5, 40, 80), "What?", frames=None)
    norms = model.run(x, [VisionNorms()]).data.vision_norms.sel(vision_layer=1)
    edges = x.layout.clips[0].grid.col_edges
    if edges[0, 0] == 0:
        pytest.skip("this processor crops nothing")
    painted = paint_patches(norms, x.layout)
    seen = np.isfinite(painted).all((0, 1))
    middles = (np.arange(80) + 0.5) / 80
    assert np.array_equal(seen, (middles > edges[0, 0]) & (middles < edges[-1, 1]))


def test_figures_say_what_they_show(tmp_path) -> None:
    model = models.build("llava_onevision")
    clip = tiny.clip(5)
    x = model.encode(clip, "What?", frames=None)
    data = model.run(x, [VisionNorms(), VisionSimilarity()]).data
    strip = patch_strip(clip.frames, data.vision_norms.sel(vision_layer=2), x.layout)
    texts = [text.get_text() for ax in strip.axes for text in ax.texts]
    assert texts == [f"{n} · {second:.2f} s" for n, second in enumerate(clip.seconds)]
    assert strip.axes[-1].get_ylabel() == "vision norms"
    pair = layer_similarity(data.vision_similarity)
    assert [ax.get_title(loc="left") for ax in pair.axes[:2]] == ["CKA", "cosine"]
    for number, figure in enumerate((strip, pair)):
        assert all(path.stat().st_size > 3000 for path in save(figure, tmp_path / str(number)))


def test_values_that_cannot_be_painted_are_refused() -> None:
    model = models.build("llava_onevision")
    x = models.example(model)
    data = model.run(x, [VisionNorms()]).data
    with pytest.raises(ProbeError, match="choose a layer"):
        paint_patches(data.vision_norms, x.layout)
    elsewhere = data.vision_norms[0].assign_coords(frame=[f"tile {n}" for n in range(5)])
    with pytest.raises(ProbeError, match="no frame of video 0"):
        paint_patches(elsewhere, x.layout)
