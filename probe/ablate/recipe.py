"""Recipes: published methods as functions that return configured operators, with their cards."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from probe.spec import Spec, text


@dataclass(frozen=True)
class Card:
    """What is known of a published method.

    Attributes:
        paper: who and where.
        stages: which of the published stages are here, and which are not.
        note: where paper and code differ, and what else to know.
    """

    paper: str
    stages: str = "all"
    note: str = ""


def recipe(paper: str, stages: str = "all", note: str = "") -> Callable:
    """Mark a function as a recipe; what it returns carries its name and arguments.

    One operator of several has the number of its place: `holitom(keep=0.1)[1]`.
    """

    def mark(function: Callable) -> Callable:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def made(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            shown = [
                f"{name}={text(value)}"
                for name, value in given.arguments.items()
                if value is not None
            ]
            label = f"{function.__name__}({', '.join(shown)})"
            found = function(*args, **kwargs)
            if isinstance(found, Spec):
                return found.labelled(label)
            if len(found) == 1:
                return [found[0].labelled(label)]
            return [one.labelled(f"{label}[{i}]") for i, one in enumerate(found)]

        made.__dict__["card"] = Card(paper, stages, note)
        return made

    return mark
