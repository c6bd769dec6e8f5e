"""Studies: many samples, their statistics and their controls."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probe.study.cell import Cell
    from probe.study.sample import Sample
    from probe.study.spec import Study
    from probe.study.task import Task

__all__ = ["Cell", "Sample", "Study", "Task"]

_HOMES = {"Cell": "cell", "Sample": "sample", "Study": "spec", "Task": "task"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'probe.study' has no attribute {name!r}")
    return getattr(importlib.import_module(f"probe.study.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
