"""Small hooks of a session, and who listens to what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from probe.ablate.base import Ablation
from probe.capture.base import Capture

if TYPE_CHECKING:
    from probe.engine.session import Session
    from probe.engine.vision import VisionHooks

VISION_EVENTS = ("vision_attention", "vision_residual", "vision_features")


def implements(thing: Capture | Ablation, event: str) -> bool:
    """Whether a capture or an ablation listens to an event."""
    base = Capture if isinstance(thing, Capture) else Ablation
    return hasattr(base, event) and getattr(type(thing), event) is not getattr(base, event)


def vision_hooks(session: Session, captures: Sequence[Capture]) -> VisionHooks | None:
    """The hooks of the vision tower, where a capture reads it."""
    if not any(implements(capture, event) for capture in captures for event in VISION_EVENTS):
        return None
    from probe.engine.vision import VisionHooks

    return VisionHooks(session, captures)


def numbered(function: Any, layer: int) -> Any:
    """A pre-hook with keyword arguments that knows its layer."""
    return lambda module, args, kwargs: function(layer, module, args, kwargs)


def after(function: Any, layer: int) -> Any:
    """A forward hook that knows its layer."""
    return lambda module, args, output: function(layer, module, output)


def told(session: Session, layer: int, part: str) -> Any:
    """A forward hook that tells captures what a part adds to the residual stream."""

    def hook(module: nn.Module, args: tuple, output: Any) -> None:
        y = output[0] if isinstance(output, tuple) else output
        session.trace(part, layer, y)
        session.tell("output", layer, part, y[0])

    return hook
