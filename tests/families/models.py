"""Every family's tiny model, built once a session."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path

import transformers

from probe.models.encode import Example
from probe.models.family import families
from probe.models.video_model import VideoModel
from tests import tiny

NAMES = sorted(
    name
    for name, family in families().items()
    if Path(__file__).with_name(f"{name}.py").is_file()
    and hasattr(transformers, str(family.model_class))  # older releases lack the newest
)


@cache
def build(name: str, attention: str = "sdpa") -> VideoModel:
    """The tiny model of a family; with "eager" the same weights and dense maps."""
    return import_module(f"tests.families.{name}").build(attention, seed=1)


def example(model: VideoModel, **more) -> Example:
    """A clip of noise, with as many frames as the family takes, and a question."""
    shown = tiny.clip(model.family.frames or 5, 40, 60)
    return model.encode(shown, "What moves?", frames=None, **more)
