"""Checkpoints as video models: loading, families, encoding, and the layout of their tokens."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probe.models.family import Family, register
    from probe.models.layout import Layout
    from probe.models.video_model import VideoModel
    from probe.models.visual import Visual, VisualGrid

__all__ = ["Family", "Layout", "VideoModel", "Visual", "VisualGrid", "register"]

_PLACES = {
    "Family": "family",
    "register": "family",
    "Layout": "layout",
    "Visual": "visual",
    "VisualGrid": "visual",
    "VideoModel": "video_model",
}


def __getattr__(name: str) -> Any:
    """Import what is heavy only when it is asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module 'probe.models' has no attribute {name!r}")
    return getattr(import_module(f"probe.models.{_PLACES[name]}"), name)
