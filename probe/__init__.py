"""How a video multimodal LLM uses its video: capture, ablate, diagnose."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.comparison import compare
    from probe.engine.result import open_run as open
    from probe.models.loading import load
    from probe.video import read as read_video

__version__ = "0.1.0"
__all__ = ["ProbeError", "__version__", "compare", "load", "open", "read_video"]

_PLACES = {
    "compare": ("probe.comparison", "compare"),
    "load": ("probe.models.loading", "load"),
    "open": ("probe.engine.result", "open_run"),
    "read_video": ("probe.video", "read"),
}


def __getattr__(name: str) -> Any:
    """Import what is heavy only when it is asked for."""
    if name == "interop":
        return import_module("probe.interop")
    if name not in _PLACES:
        raise AttributeError(f"module 'probe' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)
