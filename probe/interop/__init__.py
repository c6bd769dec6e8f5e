"""Other toolkits: TransformerLens, nnsight, and activations as safetensors files."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "ResidualStream": "residual_stream",
    "captures": "residual_stream",
    "to_transformer_lens": "transformer_lens",
    "to_nnsight": "nnsight",
    "save_activations": "safetensors",
    "open_activations": "safetensors",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    """Import a toolkit only when it is asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module 'probe.interop' has no attribute {name!r}")
    return getattr(importlib.import_module(f"probe.interop.{_MODULES[name]}"), name)
