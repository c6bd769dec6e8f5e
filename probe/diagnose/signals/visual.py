"""What visual tokens hold: a lens on named vocabulary entries, and cosines to other states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

CHUNK = 1024  # visual tokens whose logits are held at once


@dataclass(frozen=True)
class StateCapture(Capture):
    """Base of captures of hidden states X[0..L], numbered as transformers numbers them.

    X[0] are the embeddings, X[s] what leaves layer s - 1, and X[L] has passed the last norm.
    """

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        self.state(session, state, layer, x)

    def final(self, session: Session, state: dict, x: Tensor) -> None:
        norm = session.model.decoder.norm
        # The module's hooks belong to the run: this is arithmetic beside it.
        self.state(session, state, session.model.n_layers, norm.forward(x))

    def state(self, session: Session, state: dict, number: int, x: Tensor) -> None:
        """Hidden state X[number] [row, channel]."""
        raise NotImplementedError

    def rows(self, session: Session, number: int, positions: np.ndarray, x: Tensor) -> Tensor:
        """Rows of a state at some positions."""
        there = session.positions[min(number, session.model.n_layers - 1)]
        return x[torch.as_tensor(np.searchsorted(there, positions), device=x.device)]


@dataclass(frozen=True)
class VisualLens(StateCapture):
    """Logit lens over the clip's tokens, at every state, for some vocabulary entries.

    Exact over the vocabulary (a log-sum-exp of all entries), of which only the named columns and
    the most likely entry are kept.

    Attributes:
        ids: vocabulary entries to follow.
        lens: "raw" unembeds X[s] as it is (as the released detectors do), "normed" after the last
            norm; X[L] is normed in both.
        top: renormalise over this many most likely entries, all others get 0; 0 for all of them.

    Results: visual_lens [state, position, id] log-probability (-inf outside of `top`),
    visual_lens_best [state, position] the most likely entry.
    """

    ids: Sequence[int] = ()
    lens: str = "raw"
    top: int = 0

    def start(self, session: Session) -> dict:
        if self.lens not in ("raw", "normed") or session.generating:
            raise ProbeError(f'{self.kind}: lens is "raw" or "normed", and it reads model.run')
        return {"video": session.layout.select("video"), "columns": [], "best": []}

    def state(self, session: Session, state: dict, number: int, x: Tensor) -> None:
        model = session.model
        x = self.rows(session, number, state["video"], x)
        if self.lens == "normed" and number < model.n_layers:
            x = model.decoder.norm.forward(x)
        ids = torch.tensor(self.ids, device=x.device, dtype=torch.long)
        columns, best = [], []
        for part in x.split(CHUNK):
            logits = model.head(part).float()
            if self.top:
                least = logits.topk(min(self.top, logits.shape[-1])).values[:, -1:]
                logits = logits.masked_fill(logits < least, float("-inf"))
            columns.append((logits[:, ids] - logits.logsumexp(-1, keepdim=True)).cpu())
            best.append(logits.argmax(-1).cpu())
        state["columns"].append(torch.cat(columns).numpy())
        state["best"].append(torch.cat(best).numpy())

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        states = np.arange(session.model.n_layers + 1)
        coords = {"state": states, "position": state["video"]}
        about = f"{self.lens} logit lens on the clip's tokens"
        columns, best = np.stack(state["columns"]), np.stack(state["best"])
        dims = ["state", "position", "id"]
        wide = coords | {"id": list(self.ids)}
        return {
            self.kind: array(session, columns, dims, wide, "nat", about),
            f"{self.kind}_best": array(session, best, dims[:2], coords, "id", f"{about}: best"),
        }

    def memory(self, session: Session) -> int:
        visual = int((session.layout.role == "video").sum())
        kept = (session.model.n_layers + 1) * visual * (len(self.ids) + 2)
        return 4 * (kept + CHUNK * session.model.head.weight.shape[0])


@dataclass(frozen=True)
class VisualCosines(StateCapture):
    """Cosines of the clip's tokens, and of the last prompt token, to the states of queries.

    Attributes:
        queries: positions of the queries.
        pairs: (state of the clip's token, state of the query); from 0 to the number of layers.

    Result: visual_cosines [pair, token, position]; the last position is that of the last prompt
    token.
    """

    queries: Sequence[int] = ()
    pairs: Sequence[tuple[int, int]] = ()

    def start(self, session: Session) -> dict:
        last = session.model.n_layers
        wrong = next((p for p in self.pairs if not all(0 <= s <= last for s in p)), None)
        if wrong is not None or session.generating:
            raise ProbeError(f"{self.kind}: states {wrong}; there are 0 to {last}, in model.run")
        keys = np.append(session.layout.select("video"), session.layout.last)
        return {"keys": keys, "left": {}, "right": {}, "found": {}}

    def state(self, session: Session, state: dict, number: int, x: Tensor) -> None:
        visual, queries = zip(*self.pairs, strict=True)
        if number in visual:
            state["left"][number] = _unit(self.rows(session, number, state["keys"], x))
        if number in queries:
            rows = self.rows(session, number, np.array(self.queries), x)
            state["right"][number] = _unit(rows)
        for pair, (left, right) in self._ready(state):
            state["found"][pair] = (right @ left.mT).cpu().numpy()
        waiting = {pair[0] for pair in self.pairs if pair not in state["found"]}
        state["left"] = {s: x for s, x in state["left"].items() if s in waiting}

    def _ready(self, state: dict) -> Iterator[tuple[tuple[int, int], tuple[Tensor, Tensor]]]:
        for pair in self.pairs:
            if (
                pair not in state["found"]
                and pair[0] in state["left"]
                and pair[1] in state["right"]
            ):
                yield pair, (state["left"][pair[0]], state["right"][pair[1]])

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        values = np.stack([state["found"][pair] for pair in self.pairs])
        coords = {
            "pair": [f"{s} {t}" for s, t in self.pairs],
            "token": np.arange(len(self.queries)),
            "position": state["keys"],
        }
        about = "cosine of the clip's token at a state to the query at a state"
        return {self.kind: array(session, values, list(coords), coords, "1", about)}

    def memory(self, session: Session) -> int:
        keys = int((session.layout.role == "video").sum()) + 1
        return 4 * keys * (len(self.pairs) * len(self.queries) + 2 * session.model.width)


def _unit(x: Tensor) -> Tensor:
    x = x.float()
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)
