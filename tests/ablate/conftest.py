"""The models that oracles are tried on."""

from __future__ import annotations

import pytest

from probe.models.video_model import VideoModel


@pytest.fixture(params=["tiny", "other", "tiny_eager"])
def model(request: pytest.FixtureRequest) -> VideoModel:
    return request.getfixturevalue(request.param)
