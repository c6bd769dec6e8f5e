"""Synthetic videos with ground truth, and a small trained checkpoint that runs anywhere."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probe.testbed.accuracy import evaluate
    from probe.testbed.clip import write_clip
    from probe.testbed.drawing import render
    from probe.testbed.generator import make_scene
    from probe.testbed.item import Item, items
    from probe.testbed.question import Question
    from probe.testbed.scene import Scene, Thing

__all__ = [
    "Item",
    "Question",
    "Scene",
    "Thing",
    "checkpoint",
    "evaluate",
    "items",
    "make_scene",
    "names",
    "render",
    "write_clip",
]

_HOMES = {
    "Item": "item",
    "Question": "question",
    "Scene": "scene",
    "Thing": "scene",
    "evaluate": "accuracy",
    "items": "item",
    "make_scene": "generator",
    "render": "drawing",
    "write_clip": "clip",
}


def names() -> tuple[str, ...]:
    """The built-in checkpoints, without the leading "testbed/"."""
    return tuple(sorted(path.parent.name for path in _folder().glob("*/config.json")))


def checkpoint(name: str = "onevision") -> Path:
    """The folder of a built-in checkpoint.

    Raises:
        KeyError: there is none of that name.
    """
    short = name.removeprefix("testbed/")
    if short not in names():
        raise KeyError(f"no built-in checkpoint {name}; there is {', '.join(names())}")
    return _folder() / short


def _folder() -> Path:
    return Path(__file__).parent / "checkpoints"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'probe.testbed' has no attribute '{name}'")
    return getattr(importlib.import_module(f"probe.testbed.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
