"""What the visual tokens' states are like in each layer, computed as the model runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.gather import array, stack, store
from probe.capture.vision_similarity import linear_cka
from probe.diagnose.cells import clip_tokens, evenly
from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session

STATISTICS = ("rank", "centred rank", "mean cosine")


@dataclass(frozen=True)
class StateStatistics(Capture):
    """Effective rank and mean cosine of the visual tokens' residual stream, by layer.

    No state outlives its layer.

    Attributes:
        tokens: at most so many visual tokens of the first clip, evenly spaced.

    Result: state_statistics [layer, statistic], attribute `most`: the greatest possible rank.
    """

    tokens: int = 1024

    def start(self, session: Session) -> dict:
        return {"tokens": _chosen(session, self.tokens, self.kind)}

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        vectors = _states(session, state["tokens"], layer, x)
        state["most"] = 0 if vectors is None else min(vectors.shape)
        found = [float("nan")] * len(STATISTICS)
        if vectors is not None:
            given = vectors.float().cpu().numpy()
            found = [
                effective_rank(given),
                effective_rank(given, centred=True),
                mean_cosine(given),
            ]
        store(session, state, layer, torch.tensor(found))

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        layers = list(range(session.model.n_layers))
        coords = {"layer": layers, "statistic": list(STATISTICS)}
        about = f"of {len(state['tokens'])} visual tokens as they enter the layer"
        made = array(session, stack(session, state, layers), list(coords), coords, "1", about)
        return {self.kind: made.assign_attrs(most=state["most"])}


@dataclass(frozen=True)
class StateCKA(Capture):
    """Linear CKA between what enters the layers, visual tokens as samples.

    All pairs of layers need all layers at once: they are kept, of at most `tokens` tokens, in the
    model's dtype, until the run ends.

    Attributes:
        tokens: as in `StateStatistics`.

    Result: state_cka [layer, other_layer].
    """

    tokens: int = 1024

    def start(self, session: Session) -> dict:
        return {"tokens": _chosen(session, self.tokens, self.kind), "kept": {}}

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        vectors = _states(session, state["tokens"], layer, x)
        if vectors is not None:
            state["kept"][layer] = vectors.cpu()

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        layers, kept = list(range(session.model.n_layers)), state["kept"]
        values = np.full((len(layers), len(layers)), np.nan)
        values[np.ix_(list(kept), list(kept))] = linear_cka(list(kept.values()))
        coords = {"layer": layers, "other_layer": layers}
        about = f"linear CKA between layers over {len(state['tokens'])} visual tokens"
        return {self.kind: array(session, values, list(coords), coords, "1", about)}

    def memory(self, session: Session) -> int:
        model = session.model
        tokens = min(self.tokens, len(clip_tokens(session.layout)))
        return model.n_layers * tokens * model.width * model.hf.dtype.itemsize


def effective_rank(x: Float[np.ndarray, "token channel"], centred: bool = False) -> float:
    """Effective rank of a matrix, exp of the entropy of the singular values made to sum to 1; NaN
    where the matrix is 0.

    Singular values are the roots of the eigenvalues of the smaller Gram matrix, in float64: what
    is below 1e-7 of the greatest, or so, is rounding and counts as 0.
    """
    x = x.astype(np.float64)
    x = x - x.mean(0) if centred else x
    gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
    squares = np.linalg.eigvalsh(gram)
    if squares[-1] <= 0:
        return float("nan")
    kept = squares[squares > 1e-14 * squares[-1] * len(gram)]
    part = np.sqrt(kept) / np.sqrt(kept).sum()
    return float(np.exp(-(part * np.log(part)).sum()))


def mean_cosine(x: Float[np.ndarray, "token channel"]) -> float:
    """Mean cosine over all pairs of different rows: the squared length of the sum of all unit
    vectors is that of all pairs, and of each with itself. NaN for a single row.
    """
    count = len(x)
    if count < 2:
        return float("nan")
    unit = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-30)
    total = unit.sum(0, dtype=np.float64)
    return float((total @ total - count) / (count * (count - 1)))


def _chosen(session: Session, tokens: int, owner: str) -> np.ndarray:
    if session.generating:
        raise ProbeError(f"{owner}: reads a prompt; use model.run")
    if tokens < 2:
        raise ProbeError(f"{owner}: tokens={tokens}; at least 2 are compared")
    return evenly(clip_tokens(session.layout), tokens)


def _states(session: Session, tokens: np.ndarray, layer: int, x: Tensor) -> Tensor | None:
    """[token, channel]; None where one of them is gone."""
    there = session.positions[layer]
    if not np.isin(tokens, there).all():
        return None
    return x[torch.as_tensor(np.searchsorted(there, tokens), device=x.device)]
