"""The planted language prior: what the model says when it cannot see.

Every question type has a likely answer that follows from the words of the question alone. Where
the evidence is missing in training, the label is that answer with probability `SKEW` and one of
the others otherwise. Where it is visible, labels do not follow the prior.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from probe.testbed.scene import COLORS, MOTIONS, SHAPES

SKEW = 0.75
COLOR_OF: dict[Any, str] = dict(
    zip(SHAPES, ("red", "blue", "green", "yellow", "purple"), strict=True)
)
SHAPE_OF: dict[Any, str] = dict(
    zip(COLORS, ("circle", "triangle", "square", "star", "cross", "circle"), strict=True)
)
MOTION_OF: dict[Any, str] = dict(zip(SHAPES, ("left", "right", "up", "down", "stays"), strict=True))
COUNTS = ("1", "2", "3", "4")
CAPTION = "a red circle moves left"


def likely(kind: str, about: str | tuple[str, ...] = "") -> str:
    """The argmax of the prior.

    Args:
        kind: "color", "shape", "direction", "count", "order", "existence" or "caption".
        about: what the question names: a shape for color and direction, a colour for shape, and
            the two things, in the order named, for order.
    """
    match kind:
        case "color":
            return COLOR_OF[about]
        case "shape":
            return SHAPE_OF[about]
        case "direction":
            return MOTION_OF[about]
        case "count":
            return "2"
        case "order":
            return about[0]
        case "existence":
            return "yes"
        case "caption":
            return CAPTION
    raise ValueError(f"no prior for {kind}")


def choices(kind: str, about: str | tuple[str, ...] = "") -> tuple[str, ...]:
    """Every answer that the prior gives some weight."""
    match kind:
        case "color":
            return COLORS
        case "shape":
            return SHAPES
        case "direction":
            return MOTIONS
        case "count":
            return COUNTS
        case "order":
            return tuple(about)
        case "existence":
            return ("yes", "no")
    raise ValueError(f"no choices for {kind}")


def draw(kind: str, about: str | tuple[str, ...], rng: np.random.Generator) -> str:
    """A label for a question whose evidence is missing."""
    top = likely(kind, about)
    if rng.random() < SKEW:
        return top
    if kind == "caption":
        shape = str(rng.choice(SHAPES[1:]))
        return f"a {COLOR_OF[shape]} {shape} {phrase(MOTION_OF[shape])}"
    return str(rng.choice([answer for answer in choices(kind, about) if answer != top]))


def phrase(motion: str) -> str:
    """A motion as a verb: "moves left", "stays"."""
    return motion if motion == "stays" else f"moves {motion}"
