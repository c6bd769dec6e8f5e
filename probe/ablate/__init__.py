"""Ablations: what is taken away or changed in a run. Each is a frozen dataclass or a recipe."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

_OPERATORS = {
    "Reduce": "reduce",
    "Knockout": "knockout",
    "NoRope": "norope",
    "Steer": "steer",
    "SparseReconstruction": "sae",
}
_RECIPES = {"fastv": "reduce", "edvt": "norope"}
_PARTS = {
    "layer": "reduce",
    "Layer": "reduce",
    "LastQuery": "scores",
    "Norm": "scores",
    "Uniform": "scores",
    "Random": "scores",
}
_MODULES = _OPERATORS | _RECIPES | _PARTS
__all__ = ["Ablation", "ablations", "parse", *_MODULES]


def __getattr__(name: str) -> Any:
    if name == "Ablation":
        return importlib.import_module("probe.ablate.base").Ablation
    if name not in _MODULES:
        raise AttributeError(f"module 'probe.ablate' has no attribute {name!r}")
    return getattr(importlib.import_module(f"probe.ablate.{_MODULES[name]}"), name)


def ablations() -> dict[str, Callable]:
    """Operators and recipes by name."""
    return {name: __getattr__(name) for name in (*_OPERATORS, *_RECIPES)}


def names() -> dict[str, Callable]:
    """Everything that may be written in an ablation's text or JSON."""
    return {name: __getattr__(name) for name in _MODULES}


def parse(text: str) -> list:
    """Ablations from text such as "fastv(k=2, keep=0.5)", without eval.

    Raises:
        ProbeError: text that is not calls of known names.
    """
    from probe import spec

    return spec.parse(text, names())
