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
    if isinstance(thing, Ablation):
        return hasattr(Ablation, event) and thing.listens(event)
    return hasattr(Capture, event) and getattr(type(thing), event) is not getattr(Capture, event)


def vision_hooks(
    session: Session, captures: Sequence[Capture], ablations: Sequence[Ablation]
) -> VisionHooks | None:
    """The hooks of the vision tower, where a capture or an ablation reads it."""
    shown = ablations if session.layout.visuals else ()
    reading = [a for a in (*captures, *shown) if any(implements(a, e) for e in VISION_EVENTS)]
    if not reading:
        return None
    from probe.engine.vision import VisionHooks

    return VisionHooks(session, reading)


def numbered(function: Any, layer: int) -> Any:
    """A pre-hook with keyword arguments that knows its layer."""
    return lambda module, args, kwargs: function(layer, module, args, kwargs)


def after(function: Any, layer: int) -> Any:
    """A forward hook that knows its layer."""
    return lambda module, args, output: function(layer, module, output)


def added(session: Session, layer: int, part: str) -> Any:
    """A forward hook on what a part adds to the residual stream: ablations change it, captures
    are told.
    """
    changing = any(implements(a, "output") for a, _ in session.ablations)

    def hook(module: nn.Module, args: tuple, output: Any) -> Any:
        y = output[0] if isinstance(output, tuple) else output
        changed = session.change("output", y[0], layer, part)[None] if changing else y
        session.trace(part, layer, changed)
        session.tell("output", layer, part, changed[0])
        if not changing:
            return None
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return hook


def hidden(session: Session, layer: int) -> Any:
    """A pre-hook on the output projection of an MLP: ablations change its hidden units."""

    def hook(module: nn.Module, args: tuple) -> tuple:
        h = args[0] if args[0].dim() == 3 else args[0][None]
        changed = session.change("hidden", h[0], layer)[None]
        return (changed.view_as(args[0]), *args[1:])

    return hook
