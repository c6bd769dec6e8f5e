"""Diagnoses: what captures and ablations mean, on one clip and over many items."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "Margin": "margin",
    "margin": "margin",
    "FrameSimilarity": "similarity",
    "redundancy": "redundancy",
    "droppable_from": "redundancy",
    "counterfactuals": "hallucination",
    "influence": "hallucination",
    "redundancy_over": "items",
    "counterfactuals_over": "items",
    "existence": "items",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'probe.diagnose' has no attribute {name!r}")
    return getattr(importlib.import_module(f"probe.diagnose.{_MODULES[name]}"), name)
