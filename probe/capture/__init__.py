"""Captures: what is read out of a run. Each is a frozen dataclass."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "AttentionMass": "mass",
    "AttentionReceived": "received",
    "AttentionEntropy": "entropy",
    "AttentionRows": "rows",
    "TokenNorms": "norms",
    "Contributions": "contributions",
    "LogitLens": "lens",
    "Activations": "activations",
    "GradientTimesInput": "gradient",
    "AttributionPatching": "gradient",
    "SparseFeatures": "sae",
    "KeysValues": "keys_values",
    "VisionAttention": "vision_attention",
    "VisionEntropy": "vision_entropy",
    "VisionFrameMass": "vision_frame_mass",
    "VisionNorms": "vision_norms",
    "VisionFeatures": "vision_features",
    "VisionSimilarity": "vision_similarity",
}
__all__ = ["Capture", "captures", *_MODULES]


def __getattr__(name: str) -> Any:
    if name == "Capture":
        return importlib.import_module("probe.capture.base").Capture
    if name not in _MODULES:
        raise AttributeError(f"module 'probe.capture' has no attribute {name!r}")
    return getattr(importlib.import_module(f"probe.capture.{_MODULES[name]}"), name)


def captures() -> dict[str, type]:
    """Every capture by class name, for the command line and JSON."""
    return {name: __getattr__(name) for name in _MODULES}
