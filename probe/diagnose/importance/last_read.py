"""LastRead: the vectors that the last prompt position reads of each video token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.frozen_norm import gain, scale
from probe.capture.gather import array
from probe.diagnose.importance.reading import pair
from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session

WHAT = {
    "norm": "norm of weight x value x W_O, by head",
    "vector": "norm of the sum over heads of weight x value x W_O",
    "contribution": "contribution to the logit of the answer minus that of its best rival",
}


@dataclass(frozen=True)
class LastRead(Capture):
    """What the last prompt position reads of each video token: weight x value x W_O.

    Attributes:
        what: "norm": the length of that vector, by head. "vector": the length of its sum over
            heads, which is what the layer adds to the stream. "contribution": the product of the
            sum with the direction of logit(target) - logit(best rival) at the last norm, which is
            frozen, as in `Contributions`.
        target: for contributions, id of the answer; None for the token that the model puts first.
        rivals: ids of the wrong answers; none for all other tokens.

    Result: last_read [layer, head, position] for "norm", else [layer, position], with the video
    tokens' positions.
    """

    always_shown: ClassVar[tuple[str, ...]] = ("what",)

    what: str = "norm"
    target: int | None = None
    rivals: Sequence[int] = ()

    def start(self, session: Session) -> dict:
        if self.what not in WHAT:
            raise ProbeError(f'{self.kind}: what="{self.what}"; there are {", ".join(WHAT)}')
        if session.generating:
            raise ProbeError(f"{self.kind}: reads one forward pass")
        return {"tokens": session.layout.select("video"), "found": [], "vectors": []}

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        row = call.index(np.array([session.layout.last]))
        columns = call.key_index(state["tokens"])
        weight = call.weights(row)[:, 0, columns]
        value = call.value[:, columns].float().repeat_interleave(call.group_size, 0)
        matrix = session.model.output_matrix(call.layer).detach().to(value)
        by_head = matrix.view(len(matrix), call.heads, -1)
        after = _after(session, call, int(row[0]))
        if after is not None:
            by_head = by_head * after[:, None, None]
        if self.what == "norm":
            gram = torch.einsum("whd,whe->hde", by_head, by_head)
            squares = ((value @ gram) * value).sum(-1)
            state["found"].append((weight * squares.clamp(min=0).sqrt()).cpu())
            return
        read = (weight[..., None] * value).transpose(0, 1).flatten(1)
        vector = read @ by_head.flatten(1).T
        if self.what == "vector":
            state["found"].append(vector.norm(dim=-1).cpu())
        else:
            state["vectors"].append(vector)

    def final(self, session: Session, state: dict, x: Tensor) -> None:
        row = int(np.searchsorted(session.positions[-1], session.layout.last))
        state["final"] = x[row].float()

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        if self.what == "contribution":
            way = self._direction(session, state["final"])
            state["found"] = [(vector @ way).cpu() for vector in state.pop("vectors")]
        coords = {"layer": list(range(session.model.n_layers))}
        if self.what == "norm":
            coords["head"] = list(range(session.model.n_heads))
        coords["position"] = state["tokens"]
        values = torch.stack(state["found"]).numpy()
        units = "logit" if self.what == "contribution" else "1"
        return {self.kind: array(session, values, list(coords), coords, units, WHAT[self.what])}

    def memory(self, session: Session) -> int:
        model, tokens = session.model, len(session.layout.select("video"))
        width = {"norm": model.n_heads, "vector": 1, "contribution": model.width}[self.what]
        return 4 * model.n_layers * tokens * width

    def _direction(self, session: Session, final: Tensor) -> Tensor:
        """[channel]: what a part of the last residual is multiplied with for its share."""
        norm, head = session.model.decoder.norm, session.model.head
        with torch.no_grad():
            logits = head(norm(final[None, None].to(head.weight.dtype)))[0, 0].float()
            target, rival = pair(logits, self.target, self.rivals)
            way = (head.weight[target] - head.weight[rival]).float()
            return way * gain(norm, session.model.width).to(way) * scale(norm, final)


def _after(session: Session, call: AttentionCall, row: int) -> Tensor | None:
    """What a norm behind the attention multiplies each channel with at this row, its scale
    frozen; None in families without one.
    """
    family = session.model.family
    if family.added[0] == family.attention:
        return None
    norm = session.model.layers[call.layer].get_submodule(family.added[0])
    own = session.model.output(call.layer)(call.output[row].flatten())
    return gain(norm, session.model.width) * scale(norm, own)
