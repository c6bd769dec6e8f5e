"""The vision tower: every layer's attention goes through transformers' attention interface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from probe.doctor.check import Check, failed, ok, skipped
from probe.doctor.subject import Subject, entering
from probe.engine import seam
from probe.engine.vision_parts import vision_tower

if TYPE_CHECKING:
    from probe.engine.session import Session
    from probe.models.video_model import VideoModel

REACHED = "attention reached, vision tower"
TODO = (
    "its forward must call transformers' attention interface "
    "(ALL_ATTENTION_FUNCTIONS.get_interface) with its own config; captures of the tower's "
    "attention cannot read it"
)


class Counting:
    """Stands at the seam where a run does: notes who comes, and computes as they would have."""

    def __init__(self) -> None:
        self.own: dict[nn.Module, Any] = {}
        self.reached: set[nn.Module] = set()

    def attend(
        self, module: nn.Module, query: Any, key: Any, value: Any, mask: Any, kwargs: dict
    ) -> Any:
        """The module's own attention."""
        self.reached.add(module)
        function = seam.implementation(module, self.own[module]._attn_implementation)
        return function(module, query, key, value, mask, **kwargs)


@contextmanager
def counting(model: VideoModel, modules: list[nn.Module]) -> Iterator[Counting]:
    """The seam on these modules, counted."""
    counter = Counting()
    token = seam.current.set(cast("Session", counter))
    try:
        for module in modules:
            counter.own[module] = seam.install(module)
        yield counter
    finally:
        for module, config in counter.own.items():
            module.config = config
        seam.current.reset(token)


def vision_reached(subject: Subject) -> Check:
    """Every attention module in the tower's layers calls the attention function."""
    if subject.model.family.vision is None:
        return skipped(REACHED, "this family has no vision tower", "nothing to read there")
    tower = vision_tower(subject.model)
    kind = type(tower.module).__name__
    modules = list(tower.attentions)
    if not modules:
        return skipped(
            REACHED,
            f"{kind} has no attention of transformers",
            "captures of the tower's attention are refused; norms and features can be read",
        )
    with counting(subject.model, modules) as counter:
        entering(subject.model, subject.x)
    missing = [module for module in modules if module not in counter.reached]
    without = sorted(set(range(len(tower.layers))) - set(tower.attentions.values()))
    if missing or without:
        layer = tower.attentions[missing[0]] if missing else without[0]
        who = type(missing[0]).__name__ if missing else type(tower.layers[layer]).__name__
        what = f"layer {layer} ({who}) never called the attention function"
        return failed(REACHED, f"{what}; {len(missing) + len(without)} layers do not", TODO)
    return ok(REACHED, f"all {len(tower.layers)} layers")
