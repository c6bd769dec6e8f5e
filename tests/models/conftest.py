"""Layouts that several tests read."""

from __future__ import annotations

import numpy as np
import pytest

from probe.models.layout import Layout
from probe.models.video_model import VideoModel
from probe.models.visual import Visual, VisualGrid
from tests.tiny import example


@pytest.fixture
def layout(tiny: VideoModel) -> Layout:
    return example(tiny, options=["red", "blue"], system="Be brief.", answer="re").layout


@pytest.fixture
def merged() -> Layout:
    """A family that merges two frames into one group: 5 frames, 3 groups of 1 x 2 tokens."""
    group, col = np.repeat([0, 1, 2], 2), np.tile([0, 1], 3)
    edges = np.array([[0.0, 0.5], [0.5, 1.0]])
    grid = VisualGrid(
        role=np.array(["video"] * 6, "<U16"),
        group=group,
        row=col * 0,
        col=col,
        frames=((0, 1), (2, 3), (4,)),
        row_edges=np.array([[0.0, 1.0]]),
        col_edges=edges,
    )
    outside = np.array([-1])
    return Layout(
        tokens=("?",) * 7,
        role=np.array(["video"] * 6 + ["question"], "<U16"),
        group=np.append(group, outside),
        row=np.append(grid.row, outside),
        col=np.append(col, outside),
        visual=np.append(np.zeros(6, int), outside),
        visuals=(Visual("video", 0, 5, (4, 6), grid=grid),),
        seconds=np.arange(5.0),
        ends=np.arange(5.0) + 1,
        source_frame=np.arange(5) * 2,
        last=6,
        readout=np.array([6]),
    )
