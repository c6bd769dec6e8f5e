"""Several ablations in one run: in order of the place they act on, and none against another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from probe.ablate.base import PLACES, Ablation
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel


def in_order(ablations: Sequence[Ablation]) -> list[Ablation]:
    """The ablations from the first place in a forward pass to the last; those of one place in the
    order given.

    Raises:
        ProbeError: a place that does not exist, or two that contradict each other.
    """
    for one in ablations:
        if one.acts not in PLACES:
            raise ProbeError(f"{one}: '{one.acts}' is no place; there are {', '.join(PLACES)}")
    ordered = sorted(ablations, key=lambda one: PLACES.index(one.acts))
    for number, one in enumerate(ordered):
        for other in ordered[number + 1 :]:
            reason = one.contradicts(other) or other.contradicts(one)
            if reason:
                raise ProbeError(f"{one} and {other} contradict each other: {reason}")
    return ordered


def prepared(model: VideoModel, x: Example, ablations: Sequence[Ablation]) -> Example:
    """What runs in place of `x`: other frames, other inputs."""
    for one in ablations:
        x = one.prepare(model, x)
    return x


def label(ablations: Sequence[Any]) -> str:
    """Short name of a list of ablations for tables: a recipe's own name where they are one."""
    texts = [str(one) for one in ablations]
    stems = {text[: -len(f"[{i}]")] if text.endswith(f"[{i}]") else None
             for i, text in enumerate(texts)}  # fmt: skip
    if len(texts) > 1 and len(stems) == 1 and None not in stems:
        return str(stems.pop())
    return "; ".join(texts) or "nothing"
