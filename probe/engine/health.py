"""Where NaN or Inf came from: a failing run is repeated with a check after each part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probe.capture.base import Capture
from probe.engine.session import Session
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.ablate.base import Ablation
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel


@dataclass(frozen=True)
class _FirstBad(Capture):
    def embedding(self, session: Session, state: dict, x: Tensor) -> None:
        _note(state, "the merged embeddings", x)

    def output(self, session: Session, state: dict, layer: int, part: str, y: Tensor) -> None:
        _note(state, f"the {part} of layer {layer}", y)

    def final(self, session: Session, state: dict, x: Tensor) -> None:
        _note(state, "the residual stream before the last norm", x)


def explain(model: VideoModel, x: Example, ablations: Sequence[Ablation]) -> ProbeError:
    """The error to raise for logits that are not finite; names the part that was first."""
    session = Session(model, x, [_FirstBad()], ablations)
    with session, torch.no_grad():
        model.hf(**x.inputs, use_cache=False, logits_to_keep=1)
    where = session.captures[0][1].get("first", "the unembedding")
    return ProbeError(
        f"{model.name}: NaN or Inf in the logits; the first part to produce it was {where}; "
        "try dtype=float32 or another checkpoint"
    )


def _note(state: dict, where: str, x: Tensor) -> None:
    if "first" not in state and not bool(torch.isfinite(x).all()):
        state["first"] = where
