"""Rows, columns and frames of results proved by pixels: only what is named may change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from probe.capture.vision_features import VisionFeatures
from probe.capture.vision_norms import VisionNorms
from probe.models.video_model import VideoModel
from probe.video import Clip
from tests import tiny
from tests.families import models, pixels
from tests.vision.reference import SEQUENCE

NO_PLACE = ("instructblipvideo",)  # queries of a Q-Former
POOLS_BY_ATTENTION = ("molmo2",)  # which is what the proof of features switches off


@pytest.fixture(params=models.NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def noise(model: VideoModel, name: str) -> Clip:
    """Large pixels, so that resampling does not reach from the middle of a patch into the next."""
    width = 240 if name in SEQUENCE else 120
    return tiny.clip(model.family.frames or 5, 120, width)


def moved(before: xr.DataArray, after: xr.DataArray, dim: str) -> set[tuple[str, int, int]]:
    """(frame, row, col) of what changed."""
    same = (before == after) | (before.isnull() & after.isnull())
    rest = [d for d in same.dims if d not in ("frame", dim)]
    frame, cell = np.nonzero(~same.all(rest).transpose("frame", dim).values)
    rows, cols = before.coords[f"{dim}_row"].values, before.coords[f"{dim}_col"].values
    labels = before.coords["frame"].values
    return {(str(labels[f]), int(rows[c]), int(cols[c])) for f, c in zip(frame, cell, strict=True)}


def cases(rows: int, cols: int, frames: int) -> list[tuple[int, int, int]]:
    return [(0, 0, cols - 1), (1, rows - 1, 0), (frames - 1, rows // 2, 1), (2, 0, 0)]


def changed(clip: Clip, frame: int, row: int, col: int, grid: tuple[int, int]) -> Clip:
    """The middle of one patch of one frame, inverted."""
    frames = clip.frames.copy()
    high, wide = (size / cells for size, cells in zip(frames.shape[1:3], grid, strict=True))
    y, x = (slice(int((n + 0.4) * s), int((n + 0.6) * s)) for n, s in ((row, high), (col, wide)))
    frames[frame, y, x] = 255 - frames[frame, y, x]
    return replace(clip, frames=frames)


def group_of(labels: np.ndarray, frame: int) -> str:
    for label in labels:
        first, _, last = str(label).removeprefix("frames ").removeprefix("frame ").partition("-")
        if int(first) <= frame <= int(last or first):
            return str(label)
    raise AssertionError(f"no label for frame {frame} in {labels}")


def test_a_patch_is_where_the_result_says(name: str) -> None:
    model = models.build(name)
    clip = noise(model, name)

    def norms(shown: Clip) -> xr.DataArray:
        x = model.encode(shown, "What moves?", frames=None)
        return model.run(x, [VisionNorms(layers=0)]).data.vision_norms

    before = norms(clip)
    grid = (int(before.patch_row.max()) + 1, int(before.patch_col.max()) + 1)
    assert grid[0] * grid[1] == before.sizes["patch"]
    labels = before.frame.values
    for frame, row, col in cases(*grid, len(clip.frames)):
        after = norms(changed(clip, frame, row, col, grid))
        assert moved(before, after, "patch") == {(group_of(labels, frame), row, col)}


def test_features_are_where_the_result_says(name: str) -> None:
    model = models.build(name)
    clip = noise(model, name)

    def features(shown: Clip) -> xr.Dataset:
        x = model.encode(shown, "What moves?", frames=None)
        with pixels.without_mixing(model):
            return model.run(x, [VisionFeatures(), VisionNorms(layers=0)]).data

    before = features(clip)
    if name in NO_PLACE:
        assert (before.projector_output_row == -1).all()
        return
    grid = (int(before.patch_row.max()) + 1, int(before.patch_col.max()) + 1)
    labels = before.frame.values
    for frame, row, col in cases(*grid, len(clip.frames)):
        after = features(changed(clip, frame, row, col, grid))
        for place, dim in (("before", "projector_input"), ("after", "projector_output")):
            if name in POOLS_BY_ATTENTION and place == "after":
                continue
            key = f"vision_features_{place}"
            side = grid[0] // (int(before[f"{dim}_row"].max()) + 1)
            expected = {(group_of(labels, frame), row // side, col // side)}
            assert moved(before[key], after[key], dim) == expected, (place, frame, row, col)
