"""Encoder: which layers of the vision tower the features come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from probe.ablate.base import Ablation
from probe.errors import ProbeError
from probe.spec import Layers

if TYPE_CHECKING:
    from probe.engine.session import Session
    from probe.models.video_model import VideoModel


@dataclass(frozen=True)
class Encoder(Ablation):
    """The decoder sees the output of other layers of the vision tower, or a mean of several.

    What it does is put in the place of the output of the layer that the checkpoint uses, so that
    everything behind it (norm, pooling head, projector) gets it as usual.

    Attributes:
        layers: the output of this layer (0-based, negative from the end), or the mean of several;
            None leaves the choice as it is.
        skip: layers whose output is their input: the tower without them.
    """

    place: ClassVar[str] = "vision encoder"
    source: ClassVar[str] = "choice and mean of encoder layers, as in Manager (Xu et al. 2025)"
    always_shown: ClassVar[tuple[str, ...]] = ("layers",)

    layers: int | Sequence[int] | None = None
    skip: Layers = ()

    def start(self, session: Session) -> dict[str, Any] | None:
        if not session.layout.visuals:
            return None
        tower = session.edits.tower
        count, used = len(tower.layers), used_layer(session.model, len(tower.layers))
        wanted = _numbers(self.layers, count, self.kind)
        skip = _numbers(self.skip, count, self.kind)
        if not skip and wanted in ((), (used,)) and not session.force:
            return None
        if any(layer > used for layer in (*wanted, *skip)):
            raise ProbeError(
                f"{self.kind}: the checkpoint uses the output of layer {used}; what later layers "
                "make is not known yet there; name layers up to that one"
            )
        if wanted and set(wanted) <= set(skip):
            raise ProbeError(f"{self.kind}: the layers asked for are all skipped")
        return {"wanted": wanted, "skip": skip, "used": used, "outputs": {}, "changed": False}

    def vision_layer(
        self, session: Session, state: dict, layer: int, before: Tensor, after: Tensor
    ) -> Tensor | None:
        found = before if layer in state["skip"] else after
        if layer == 0:
            state["outputs"] = {}
        if layer in state["wanted"]:
            state["outputs"][layer] = found
        if layer == state["used"] and state["wanted"]:
            found = torch.stack([state["outputs"][n] for n in state["wanted"]]).float().mean(0)
            found = found.to(after.dtype)
        if found is after:
            return None
        state["changed"] |= not torch.equal(found, after)
        return found

    def finish(self, session: Session, state: dict) -> None:
        if not state["changed"] and not session.force:
            raise ProbeError(f"{self}: the features are what they were; the ablation did not fire")


def used_layer(model: VideoModel, count: int) -> int:
    """The layer of the tower, 0-based, whose output becomes the features.

    Args:
        model: the checkpoint.
        count: layers of its tower.

    Raises:
        ProbeError: it puts the outputs of several layers side by side.
    """
    chosen = getattr(model.hf.config, "vision_feature_layer", -1)
    if isinstance(chosen, list | tuple):
        if len(chosen) != 1:
            raise ProbeError(
                f"encoder: {model.name} uses the layers {list(chosen)} side by side; no one layer "
                "stands for its features"
            )
        chosen = chosen[0]
    # Negative numbers count outputs and, before them, the embeddings.
    return count + chosen if chosen < 0 else chosen - 1


def _numbers(layers: int | str | Sequence[int] | None, count: int, owner: str) -> tuple[int, ...]:
    if layers is None or layers == ():
        return ()
    several = (layers,) if isinstance(layers, int) else layers
    numbers = []
    for layer in several:
        if not isinstance(layer, int) or not -count <= layer < count:
            raise ProbeError(
                f"{owner}: vision layer {layer} does not exist; there are 0 to {count - 1}"
            )
        numbers.append(layer % count)
    return tuple(sorted(set(numbers)))
