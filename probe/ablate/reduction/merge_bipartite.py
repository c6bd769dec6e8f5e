"""Bipartite merging: the best matches of even with odd tokens become one, round after round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.compare import Points, features, keys_of
from probe.ablate.reduction.parts import Index, Pooling, Score
from probe.ablate.reduction.weights import Weights
from probe.errors import ProbeError


@dataclass(frozen=True)
class Bipartite(Pooling):
    """In each round every even token finds its most similar odd one (cosine, ties go to the
    earlier), and the `r` even tokens with the best matches merge into theirs, at whose place the
    result stays. ToMe (Bolya et al., 2023), LongVLM (Weng et al., 2024), B-VLLM (Lu et al., 2024).

    With masses as weights, the sum of mass times feature is the same before and after.

    Attributes:
        r: merged in a round, at most half of what there is; several numbers are several rounds.
        to: in place of r: rounds of a half each until so many tokens are left.
        weight: "mass", or "mean" for means of two or more tokens whatever they stand for.
        of: compare "x" or "key".
        heads: the channels are so many heads, and compared as their average.
        protect_first: the first token (CLS) is never merged away.
        order: of the tokens in the next round and of the result: "raster", or "published"
            (unmerged even ones by falling similarity of their match, then odd ones).
    """

    r: int | tuple[int, ...] = 8
    to: int | None = None
    weight: str = "mass"
    of: str = "x"
    heads: int = 1
    protect_first: bool = False
    order: str = "raster"

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.rounds, default=0) < 0 or (self.to is not None and self.to < 1):
            raise ProbeError(f"{self.kind}: r= and to= are counts, not {self}")
        if self.weight not in ("mass", "mean"):
            raise ProbeError(f'{self.kind}: weight="{self.weight}" is not "mass" or "mean"')
        if self.order not in ("raster", "published"):
            raise ProbeError(f'{self.kind}: order="{self.order}" is not "raster" or "published"')

    @property
    def rounds(self) -> tuple[int, ...]:
        """The numbers merged in each round."""
        return self.r if isinstance(self.r, tuple) else (self.r,)

    def leaves(self) -> tuple[Score, ...]:
        return keys_of(self.of)

    @property
    def inert(self) -> bool:
        return self.to is None and not any(self.rounds)

    def weights(self, c: Candidates) -> Weights:
        x = features(c, self.of, self.kind).detach().double()
        if x.shape[1] % self.heads:
            raise ProbeError(f"{self.kind}: heads={self.heads} do not divide {x.shape[1]} channels")
        x = x.reshape(len(c), self.heads, -1).mean(1)
        state = _State(
            left=np.arange(len(c)),
            x=x.clone(),
            weight=c.mass.astype(float).copy() if self.weight == "mass" else np.ones(len(c)),
            target=np.arange(len(c)),
            value=np.ones(len(c)),
        )
        if self.to is None:
            for r in self.rounds:
                self._round(state, r)
        while self.to is not None and len(state.left) > self.to:
            before = len(state.left)
            self._round(state, before - self.to)
            if len(state.left) == before:
                break
        return self._matrix(state, c)

    def _round(self, state: _State, r: int) -> None:
        """Merge `r` of the tokens that are left."""
        first = int(self.protect_first)
        even, odd = state.left[::2], state.left[1::2]
        r = min(r, (len(state.left) - first) // 2)
        if r <= 0:
            return
        match, similar = Points.of(state.x).nearest(even, odd)
        if self.protect_first:
            similar[0] = -np.inf
        ranked = np.argsort(-similar, kind="stable")
        gone, stay = ranked[:r], ranked[r:]
        self._join(state, even[gone], match[gone])
        if self.protect_first:
            stay = np.concatenate([[0], stay[stay != 0]])
        state.left = np.concatenate([even[stay], odd])
        if self.order == "raster":
            state.left = np.sort(state.left)

    def _join(self, state: _State, source: Index, target: Index) -> None:
        """Sources into their targets: features, weights and coefficients of the original tokens."""
        total = state.weight.copy()
        np.add.at(total, target, state.weight[source])
        share = state.weight / total
        share[source] = state.weight[source] / total[target]
        merged = np.unique(target)
        device = state.x.device
        factor = torch.as_tensor(share, device=device)
        rows, sources, targets = (
            torch.as_tensor(i, device=device) for i in (merged, source, target)
        )
        state.x[rows] *= factor[rows, None]
        state.x.index_add_(0, targets, state.x[sources] * factor[sources, None])
        into = np.arange(len(share))
        into[source] = target
        state.value *= share[state.target]
        state.target = into[state.target]
        state.weight = total if self.weight == "mass" else np.ones(len(total))

    def _matrix(self, state: _State, c: Candidates) -> Weights:
        """The product of the rounds."""
        row_of = np.full(len(c), -1)
        row_of[state.left] = np.arange(len(state.left))
        row = row_of[state.target]
        order = np.argsort(row, kind="stable")
        return Weights(
            row=row[order],
            col=order,
            value=state.value[order],
            size=len(c),
            anchor=state.left,
            mass=np.bincount(row, c.mass, minlength=len(state.left)),
        )


@dataclass(eq=False)
class _State:
    """What a round leaves to the next.

    Attributes:
        left: tokens in order.
        x: [token, channel] what is compared; of those left.
        weight: of those left in a mean.
        target: where each original token ended up.
        value: its coefficient there.
    """

    left: Index
    x: Tensor
    weight: np.ndarray
    target: Index
    value: np.ndarray
