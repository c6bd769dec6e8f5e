"""The trained testbed models, loaded once."""

from __future__ import annotations

from functools import cache

import probe
from probe.models.video_model import VideoModel


@cache
def model_of(name: str) -> VideoModel:
    """`testbed/NAME`."""
    return probe.load(f"testbed/{name}")
