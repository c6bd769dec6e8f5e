"""Relevance: attention times gradient, rolled out through the layers to the prompt's tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score
from probe.capture.base import Capture
from probe.capture.gather import array
from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel

TILE = 1 << 22  # weights at once: 16 MB


@dataclass(frozen=True)
class Relevance(Score):
    """How much the answer hangs on a token: attention times gradient, rolled out.

    R starts as the row of the last prompt position and goes from the last layer to the first by
    R <- R + R E, with E the mean over heads of the positive part of attention weight times the
    gradient of the answer's logit by that weight (Chefer et al. 2021, arXiv 2103.15679). Reductions
    at the input of the decoder choose by it ("Generic token compression ... from an explainability
    perspective"; the small network that the paper trains to predict it is not here). It takes a
    run of its own, forward and backward, before the reduced one.

    Attributes:
        target: a word that is one token after this prompt, or a token id; None for the token that
            the model itself puts first.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"ahead"})

    target: str | int | None = None

    def check(self, session: Session) -> None:
        """Refuse a target that is not one token."""
        if self.target is not None:
            session.model.token_id(session.example, self.target, self.kind)

    def ahead(self, model: VideoModel, x: Example) -> Float[np.ndarray, " position"]:
        """One value per position of the prompt, 0 after its last one; from a run of its own."""
        from probe.engine.forward import run

        found = run(model, x, [Rollout(self.target)]).data.rollout
        return found.values

    def score(self, c: Candidates) -> Tensor:
        return c.readings[self].double()


@dataclass(frozen=True)
class Rollout(Capture):
    """What `Relevance` reads: the rollout from the last prompt position [position].

    Gradients by attention weights are not kept: with the output of a head o = A v, the gradient
    by A[i, j] is that by o[i], times v[j].
    """

    needs_gradient: ClassVar[bool] = True

    target: str | int | None = None

    def start(self, session: Session) -> dict:
        if session.generating:
            raise ProbeError(f"{self.kind}: reads one forward pass")
        target = self.target
        wanted = None if target is None else session.model.token_id(session.example, target, "")
        return {"target": wanted, "calls": {}, "outputs": {}}

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        state["calls"][call.layer] = call

    def trace(self, session: Session, state: dict, site: str, layer: int, x: Tensor) -> None:
        if site == "head":
            state["outputs"][layer] = x

    def backward(self, session: Session, state: dict, logits: Tensor) -> None:
        """Gradients of the logit by the heads' outputs, and the rollout."""
        readout, last = session.layout.readout, session.layout.last
        every = len(logits) != len(readout)
        row = logits[last if every else int(np.flatnonzero(readout == last)[0])].float()
        outputs, calls = state.pop("outputs"), state.pop("calls")
        target = int(row.argmax()) if state["target"] is None else state["target"]
        gradients = torch.autograd.grad(row[target], list(outputs.values()), allow_unused=True)
        relevance = torch.zeros(len(session.layout), dtype=torch.float64, device=logits.device)
        relevance[last] = 1
        with torch.no_grad():
            for layer, gradient in reversed(list(zip(outputs, gradients, strict=True))):
                call = calls.pop(layer)
                if gradient is not None:
                    rolled(call, gradient[0], relevance)
        state["relevance"] = relevance

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        values = state["relevance"].cpu().numpy()
        about = "attention times gradient, rolled out from the last prompt position"
        coords = {"position": np.arange(len(values))}
        return {self.kind: array(session, values, ["position"], coords, "1", about)}

    def memory(self, session: Session) -> int:
        """The decoder's activations of all layers, kept for the way back (a rough count)."""
        model = session.model
        width = 8 * model.width + 3 * model.hf.config.get_text_config().intermediate_size
        return model.n_layers * len(session.layout) * width * model.hf.dtype.itemsize


def rolled(
    call: AttentionCall, gradient: Float[Tensor, "row head channel"], relevance: Tensor
) -> None:
    """Add R E of one layer to R [position], in tiles of rows that are relevant.

    Args:
        call: of the layer.
        gradient: by the output of each head.
        relevance: of each layout position, changed in place.
    """
    device = relevance.device
    weight = relevance[torch.as_tensor(call.positions, device=device)]
    keys = torch.as_tensor(call.key_positions, device=device)
    value = call.value.float().repeat_interleave(call.group_size, 0)
    moved = torch.zeros(len(keys), dtype=torch.float64, device=device)
    rows = weight.nonzero()[:, 0]
    for part in rows.split(max(1, TILE // (call.heads * len(keys)))):
        attention = call.scores(part).softmax(-1)
        by_weight = gradient[part].transpose(0, 1).float() @ value.mT
        e = (attention * by_weight).clamp(min=0).mean(0).double()
        moved += weight[part] @ e
    relevance.index_add_(0, keys, moved)
