"""A tiny LLaVA-OneVision: the one that most other tests use."""

from __future__ import annotations

from probe.models.video_model import VideoModel
from tests import tiny


def build(attention: str = "sdpa", seed: int = 0) -> VideoModel:
    """4 layers, 4 heads over 2, 2 x 2 tokens a frame."""
    return tiny.build(tiny.EVEN, attention, seed)
