"""Values painted onto the frames, and the pixel proof of the layout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.models.layout import Layout
from probe.models.video_model import VideoModel
from probe.video import Clip
from tests.tiny import EVEN, ODD, Geometry, build, clip, example


@pytest.fixture(params=["tiny", "other"])
def model(request: pytest.FixtureRequest) -> VideoModel:
    return request.getfixturevalue(request.param)


def test_paint_puts_each_value_where_its_cell_is(model: VideoModel) -> None:
    layout = example(model, 3).layout
    vector = np.random.default_rng(0).normal(size=len(layout))
    painted = layout.paint(vector)
    assert painted.shape == (3, 40, 60)
    rows, cols = layout.grid or (0, 0)
    for p in layout.select("video"):
        y, x = int((layout.row[p] + 0.5) * 40 / rows), int((layout.col[p] + 0.5) * 60 / cols)
        assert painted[layout.group[p], y, x] == vector[p]
    small = layout.paint(vector, size=(rows, cols))
    np.testing.assert_array_equal(small.ravel(), vector[layout.select("video")])


def test_paint_refuses_another_length(layout: Layout) -> None:
    with pytest.raises(ProbeError, match=r"shape \(3,\), the layout"):
        layout.paint(np.zeros(3))


def test_paint_keeps_nan(layout: Layout) -> None:
    vector = np.ones(len(layout))
    vector[layout.select("frame 2")] = np.nan
    assert np.isnan(layout.paint(vector)).all((1, 2)).tolist() == [False, False, True, False, False]


def without_mixing(geometry: Geometry) -> VideoModel:
    """The vision tower's attention adds nothing, so that no patch hears of another."""
    model = build(geometry, seed=2)
    for layer in model.vision.encoder.layers:
        for parameter in layer.self_attn.out_proj.parameters():
            torch.nn.init.zeros_(parameter)
    return model


def embeddings(model: VideoModel, frames: Clip) -> np.ndarray:
    """The merged embeddings that enter the first layer of the decoder."""
    x, seen = example(model, frames), []
    handle = model.decoder.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        model.hf(**x.inputs)
    handle.remove()
    return seen[0][0].numpy()


@pytest.mark.parametrize(
    "geometry",
    [EVEN, ODD, replace(ODD, image=42), replace(EVEN, image=84)],
    ids=["4", "5", "3", "6"],
)
def test_pixels_change_only_the_tokens_that_the_layout_names(geometry: Geometry) -> None:
    model = without_mixing(geometry)
    size, patch = geometry.image, geometry.patch
    base = clip(3, size, size)
    layout = example(model, base).layout
    before = embeddings(model, base)
    rng = np.random.default_rng(0)
    whole = [(0, 0, size, size)]
    corners = [(size - 3, size - 3, size, size), (0, size - 3, 3, size)]
    for x0, y0, x1, y1 in [*whole, *corners, *_boxes(rng, size, 3), *_boxes(rng, size, patch)]:
        frame = int(rng.integers(3))
        pixels = base.frames.copy()
        pixels[frame, y0:y1, x0:x1] = 255 - pixels[frame, y0:y1, x0:x1]
        changed = (embeddings(model, replace(base, frames=pixels)) != before).any(1)
        named = layout.select(f"box {x0},{y0},{x1},{y1} & frame {frame}")
        moved = np.flatnonzero(changed)
        assert set(moved) <= set(named), (x0, y0, x1, y1)
        needed = _read(layout, geometry, named, (x0, y0, x1, y1))
        assert set(needed) <= set(moved) and len(moved) > 0, (x0, y0, x1, y1)


def _boxes(rng: np.random.Generator, size: int, side: int) -> list[tuple[int, int, int, int]]:
    corners = rng.integers(0, size - side, (3, 2))
    return [(int(x), int(y), int(x) + side, int(y) + side) for x, y in corners]


def _read(layout: Layout, geometry: Geometry, named: np.ndarray, box: tuple) -> list[int]:
    """The named tokens whose pooling gives a weight above zero to a patch in the box."""
    patches = geometry.image // geometry.patch
    side = -(-patches // 2)
    eye = torch.eye(patches)[:, None, :, None]
    weight = torch.nn.functional.interpolate(eye, size=(side, 1), mode="bilinear")[:, 0, :, 0]
    x0, y0 = (np.array(box[:2]) // geometry.patch).tolist()
    rows = weight[y0 : -(-box[3] // geometry.patch)].numpy().max(0) > 1e-6
    cols = weight[x0 : -(-box[2] // geometry.patch)].numpy().max(0) > 1e-6
    return [int(p) for p in named if rows[layout.row[p]] and cols[layout.col[p]]]
