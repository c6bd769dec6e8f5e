"""Reduce: fewer visual tokens from a layer on, in prefill and decode; the sequence is shorter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from probe.ablate.base import Ablation
from probe.ablate.scores import LastQuery, Score
from probe.errors import ProbeError
from probe.models.selection import NoClip, Selection
from probe.spec import Spec, resolve_layers

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session


@dataclass(frozen=True)
class Layer(Spec):
    """Site: the hidden states that enter layer `k` (0-based); 0 is before the language model."""

    k: int


def layer(k: int) -> Layer:
    """The hidden states entering layer k, the first that works on the shorter sequence."""
    return Layer(k)


@dataclass(frozen=True)
class Reduce(Ablation):
    """Keep the visual tokens with the largest scores; the others leave the stack.

    Kept tokens stay in order and keep their position ids (policy `keep`). The choice is made once,
    in the prefill; the cache of layers >= k is shorter and decoding needs nothing more.

    Attributes:
        at: `layer(k)`.
        score: `LastQuery()`, `Norm()`, `Uniform()`, `Random(seed)`; attention scores are read in
            the layer before the site.
        keep: fraction to keep, in [0, 1]; or
        keep_tokens: number to keep. Exactly one of the two.
        of: which tokens are candidates: "video" by default, or any selection.

    The number dropped is round(N x (1 - keep)), half to even, as in FastV's N - round(N R).
    """

    place: ClassVar[str] = "hidden states into layer k"
    source: ClassVar[str] = "general form of FastV (arXiv 2403.06764)"

    always_shown: ClassVar[tuple[str, ...]] = ("at", "score")

    at: Layer = Layer(2)
    score: Score = LastQuery()
    keep: float | None = None
    keep_tokens: int | None = None
    of: Selection = "video"

    def __str__(self) -> str:
        recipe = fastv(self.at.k, self.keep) if self.keep is not None else None
        return f"fastv(k={self.at.k}, keep={self.keep})" if self == recipe else super().__str__()

    def start(self, session: Session) -> dict | None:
        if not isinstance(self.at, Layer) or not isinstance(self.score, Score):
            raise ProbeError(f"{self.kind}: write at=layer(2) and a score such as LastQuery()")
        k = resolve_layers(self.at.k, session.model.n_layers, self.kind)[0]
        try:
            candidates = session.layout.select(self.of)
        except NoClip:
            return None
        last = {session.layout.last, *session.layout.readout.tolist()}
        if last & set(candidates.tolist()):
            raise ProbeError(
                f'{self.kind}: of="{self.of}" has positions that are read; drop others'
            )
        if self.score.needs_attention and k == 0:
            raise ProbeError(
                f"{self.kind}: there is no attention before layer 0; use at=layer(1) or later, or "
                "score=Norm(), Uniform() or Random()"
            )
        count = self._count(len(candidates))
        if count == len(candidates) and not session.force:
            return None
        return {"k": k, "candidates": candidates, "count": count, "kept": None, "scored": None}

    def _count(self, candidates: int) -> int:
        if (self.keep is None) == (self.keep_tokens is None):
            raise ProbeError(f"{self.kind}: give keep= (a fraction) or keep_tokens= (a number)")
        if self.keep is not None:
            if not isinstance(self.keep, int | float) or not 0 <= self.keep <= 1:
                raise ProbeError(f"{self.kind}: keep={self.keep}; it is a fraction from 0 to 1")
            return candidates - round(candidates * (1 - self.keep))
        if not isinstance(self.keep_tokens, int) or not 0 <= self.keep_tokens <= candidates:
            raise ProbeError(
                f"{self.kind}: keep_tokens={self.keep_tokens}; there are {candidates} candidates"
            )
        return self.keep_tokens

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        if self.score.needs_attention and call.layer == state["k"] - 1:
            there = np.intersect1d(state["candidates"], call.key_positions)
            state["scored"] = there, self.score.read(session, call, there)

    def survivors(self, session: Session, state: dict, layer: int, x: Tensor) -> np.ndarray | None:
        if layer != state["k"]:
            return None
        rows = session.positions[layer]
        there = np.intersect1d(state["candidates"], rows)
        if state["scored"] is None:
            inside = torch.as_tensor(np.flatnonzero(np.isin(rows, there)), device=x.device)
            scores = self.score.score(session, x[inside], there).detach().double().cpu().numpy()
        else:  # another reduction at this layer may have dropped some since
            scored, values = state["scored"]
            scores = values.detach().double().cpu().numpy()[np.isin(scored, there)]
        order = np.argsort(-scores, kind="stable")
        chosen = np.sort(there[order[: state["count"]]])
        state["kept"], state["dropped"] = chosen, np.setdiff1d(there, chosen)
        return np.union1d(np.setdiff1d(rows, there), chosen)

    def finish(self, session: Session, state: dict) -> None:
        if state["kept"] is None or not (len(state["dropped"]) or session.force):
            raise ProbeError(f"{self}: it dropped nothing; the ablation did not fire")
        for number in range(state["k"], session.model.n_layers):
            if np.isin(state["dropped"], session.present[number]).any():
                raise ProbeError(f"{self}: dropped tokens are still in layer {number}")


def fastv(k: int = 2, keep: float = 0.5) -> Reduce:
    """FastV (Chen et al. 2024): from layer k on keep the part of the visual tokens that the last
    prompt position attended to most in layer k - 1, mean over heads; positions are kept.
    """
    return Reduce(at=Layer(k), score=LastQuery(), keep=keep)
