"""LogitLens: what the model would say if it stopped after each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.gather import array
from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session


@dataclass(frozen=True)
class LogitLens(Capture):
    """The unembedding of the last norm of the residual stream, by layer, at every readout.

    `lens_layer` l is the stream that enters layer l; the last one is the model's own output.

    Attributes:
        top: how many tokens to keep a layer.
        words: words (one token each) whose log-probability and rank to follow.
        full: keep the logits over the whole vocabulary too.

    Results: logit_lens [lens_layer, readout, rank] log-probability, logit_lens_probability and
    logit_lens_token with the same dims, logit_lens_entropy [lens_layer, readout] in nats,
    logit_lens_word [lens_layer, readout, word] log-probability, and with `full`
    logit_lens_logits [lens_layer, readout, vocab].
    """

    top: int = 5
    words: Sequence[str] = ()
    full: bool = False

    def start(self, session: Session) -> dict:
        vocabulary = session.model.head.weight.shape[0]
        if not 1 <= self.top <= vocabulary:
            raise ProbeError(f"{self.kind}: top={self.top}; it is 1 to {vocabulary}")
        words = (self.words,) if isinstance(self.words, str) else self.words
        ids = [session.model.token_id(session.example, word, self.kind) for word in words]
        return {"ids": ids, "words": list(words), "steps": []}

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        if layer == 0:
            state["steps"].append([])
        state["steps"][-1].append(self._logits(session, layer, x))

    def final(self, session: Session, state: dict, x: Tensor) -> None:
        state["steps"][-1].append(self._logits(session, session.model.n_layers - 1, x))

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        steps = [torch.stack(layers) for layers in state["steps"]]
        logits = torch.cat(steps, 1)  # [lens_layer, readout, vocab]
        log_p = logits.log_softmax(-1)
        values, ids = log_p.topk(self.top, dim=-1)
        entropy = -(log_p.exp() * log_p).sum(-1)
        texts = np.array(session.model.decode_each(ids.flatten().tolist()), dtype=object)
        found: dict[str, tuple[np.ndarray, list[str], str]] = {
            self.kind: (values.numpy(), ["rank"], "nat"),
            f"{self.kind}_probability": (values.exp().numpy(), ["rank"], "1"),
            f"{self.kind}_token": (texts.reshape(ids.shape).astype(str), ["rank"], "text"),
            f"{self.kind}_entropy": (entropy.numpy(), [], "nat"),
        }
        if state["ids"]:
            found[f"{self.kind}_word"] = (log_p[..., state["ids"]].numpy(), ["word"], "nat")
        if self.full:
            found[f"{self.kind}_logits"] = (logits.numpy(), ["vocab"], "logit")
        readout = session.layout.readout[: logits.shape[1]]
        if session.generating:
            readout = np.arange(session.layout.last, session.layout.last + logits.shape[1])
        shared = {
            "lens_layer": np.arange(logits.shape[0]),
            "rank": np.arange(self.top),
            "word": state["words"],
            "vocab": np.arange(logits.shape[-1]),
        }
        about = "unembedding of the normed residual stream that enters the layer"
        return {
            name: _array(session, values, extra, shared | {"readout": readout}, units, about)
            for name, (values, extra, units) in found.items()
        }

    def memory(self, session: Session) -> int:
        readouts = len(session.layout.readout)
        return 8 * (session.model.n_layers + 1) * readouts * session.model.head.weight.shape[0]

    def _logits(self, session: Session, layer: int, x: Tensor) -> Tensor:
        if session.generating:
            rows = x[-1:]
        else:
            wanted = np.searchsorted(session.positions[layer], session.layout.readout)
            rows = x[torch.as_tensor(wanted, device=x.device)]
        return session.model.head(session.model.decoder.norm.forward(rows)).float().cpu()


def _array(session, values, extra, coords, units, about) -> xr.DataArray:
    dims = (["step"] if session.generating else ["lens_layer", "readout"]) + extra
    if session.generating:  # one readout a step
        dims = ["lens_layer", "step", *extra]
        values = np.moveaxis(values, 1, 0)
        named = {name: coords[name] for name in ("lens_layer", *extra)}
        return array(session, values, ["lens_layer", *extra], named, units, about)
    named = {name: coords[name] for name in dims}
    return array(session, values, dims, named, units, about)
