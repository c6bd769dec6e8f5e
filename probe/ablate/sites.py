"""Sites: where in the model a reduction takes place."""

from __future__ import annotations

from dataclasses import dataclass

from probe.spec import Spec


@dataclass(frozen=True)
class Site(Spec):
    """Base of all sites."""


@dataclass(frozen=True)
class Layer(Site):
    """Hidden states that enter decoder layer `k` (0-based), the first that works on fewer rows."""

    k: int


@dataclass(frozen=True)
class Mid(Site):
    """Between attention and MLP of decoder layer `k`: its keys are full, its MLP is not."""

    k: int


@dataclass(frozen=True)
class Vision(Site):
    """After layer `layer` of the vision tower; negative numbers count from the end."""

    layer: int


@dataclass(frozen=True)
class VisionOut(Site):
    """Features that leave the vision tower, before the projector."""


def layer(k: int) -> Layer:
    """The hidden states entering layer k, the first that works on the shorter sequence."""
    return Layer(k)


def tokens() -> Layer:
    """The visual tokens that enter the language model: the same as `layer(0)`."""
    return Layer(0)


def mid(k: int) -> Mid:
    """Between attention and MLP of layer k."""
    return Mid(k)


def vision(layer: int) -> Vision:
    """After a layer of the vision tower."""
    return Vision(layer)


def vision_out() -> VisionOut:
    """Features that leave the vision tower, before the projector."""
    return VisionOut()
