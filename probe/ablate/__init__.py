"""Ablations: what is taken away or changed in a run. Each is a frozen dataclass or a recipe."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from probe.ablate.registry import OPERATORS, PARTS, RECIPES

_MODULES = OPERATORS | RECIPES | PARTS
_BESIDE = {
    "Ablation": "base",
    "controls": "swap",
    "find_sigmoid": "recipes.schedules",
    "label": "compose",
    "windows": "knockout",
}
__all__ = ["ablations", "parse", *_BESIDE, *_MODULES]


def __getattr__(name: str) -> Any:
    module = (_MODULES | _BESIDE).get(name)
    if module is None:
        raise AttributeError(f"module 'probe.ablate' has no attribute {name!r}")
    return getattr(importlib.import_module(f"probe.ablate.{module}"), name)


def ablations() -> dict[str, Callable]:
    """Operators and recipes by name."""
    return {name: __getattr__(name) for name in (*OPERATORS, *RECIPES)}


def names() -> Mapping[str, Callable]:
    """Everything that may be written in an ablation's text or JSON, imported when it is."""
    from probe.spec import Lazy

    return Lazy(__name__, _MODULES)


def parse(text: str) -> list:
    """Ablations from text such as "fastv(k=2, keep=0.5)", without eval.

    A component of a recipe is replaced by its path: `holitom(keep=0.15, 0.score=Random(seed=1))`
    (the score of its first operator).

    Raises:
        ProbeError: text that is not calls of known names.
    """
    from probe.ablate.swap import parse as read

    return read(text, names())
