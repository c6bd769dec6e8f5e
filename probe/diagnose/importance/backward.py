"""Backward: everything that maps read of one way back through the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from probe.ablate.scores_relevance import rolled
from probe.capture.base import Capture
from probe.capture.gather import array
from probe.diagnose.importance.reading import pair
from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session

WHAT = ("product", "norm", "relevance")


@dataclass(frozen=True)
class Backward(Capture):
    """Gradients of logit(target) - logit(best rival), at the merged embeddings and at attention.

    Attributes:
        target: id of the answer; None for the token that the model puts first.
        rivals: ids of the wrong answers, the best of which in this run is subtracted; none for all
            other tokens.

    Result: backward [what, position]: "product" gradient times input at the merged embedding,
    summed over channels; "norm" the length of the gradient; "relevance" attention times gradient,
    rolled out from the last prompt position (Chefer et al. 2021). All of one backward pass.
    """

    needs_gradient: ClassVar[bool] = True

    target: int | None = None
    rivals: Sequence[int] = ()

    def start(self, session: Session) -> dict:
        if session.generating:
            raise ProbeError(f"{self.kind}: reads one forward pass")
        return {"calls": {}, "heads": {}}

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        state["calls"][call.layer] = call

    def trace(self, session: Session, state: dict, site: str, layer: int, x: Tensor) -> None:
        if site == "head":
            state["heads"][layer] = x
        elif site == "residual" and layer == 0:
            state["input"] = x

    def backward(self, session: Session, state: dict, logits: Tensor) -> None:
        """The gradients, and the rollout: r <- r + r E from the last layer to the first."""
        readout, last = session.layout.readout, session.layout.last
        every = len(logits) != len(readout)
        row = logits[last if every else int(np.flatnonzero(readout == last)[0])].float()
        target, rival = pair(row.detach(), self.target, self.rivals)
        heads, calls, x = state.pop("heads"), state.pop("calls"), state.pop("input")
        found = torch.autograd.grad(
            row[target] - row[rival], [x, *heads.values()], allow_unused=True, retain_graph=True
        )
        with torch.no_grad():
            gradient = found[0][0].float()
            relevance = torch.zeros(len(session.layout), dtype=torch.float64, device=row.device)
            relevance[last] = 1
            for layer, change in reversed(list(zip(heads, found[1:], strict=True))):
                if change is not None:
                    rolled(calls.pop(layer), change[0], relevance)
            product = (gradient * x.detach()[0].float()).sum(-1)
            state["rows"] = product.cpu(), gradient.norm(dim=-1).cpu(), relevance.cpu()

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        values = np.full((len(WHAT), len(session.layout)), np.nan)
        product, norm, relevance = (row.numpy() for row in state["rows"])
        values[:2, session.positions[0]] = product, norm
        values[2] = relevance
        coords = {"what": list(WHAT), "position": np.arange(values.shape[1])}
        about = "gradients of the answer's margin at the merged embeddings, and their rollout"
        return {self.kind: array(session, values, list(coords), coords, "logit", about)}

    def memory(self, session: Session) -> int:
        """The decoder's activations of all layers, kept for the way back (a rough count)."""
        model = session.model
        width = 8 * model.width + 3 * model.hf.config.get_text_config().intermediate_size
        return model.n_layers * len(session.layout) * width * model.hf.dtype.itemsize
