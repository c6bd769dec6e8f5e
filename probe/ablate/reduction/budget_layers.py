"""Budgets over layers: rates of the original count, and a target for the sum over layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from probe.ablate.reduction.budget import fraction, rounded
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Budget, Index
from probe.errors import ProbeError


@dataclass(frozen=True)
class OfOriginal(Budget):
    """A fraction of the tokens there were before any reduction, for a reduction after others
    (PyramidDrop, arXiv 2410.17247: int(N * rate)).

    Attributes:
        keep: fraction of the original count; groups share it by their size.
        rounding: see `probe.ablate.reduction.budget.rounded`.
    """

    keep: float
    rounding: str = "floor"

    @property
    def inert(self) -> bool:
        return self.keep == 1

    def counts(self, c: Candidates, groups: list[Index], score: np.ndarray) -> list[int]:
        every = c if c.whole is None else c.whole
        total = fraction(self, self.keep) * original(c)
        return [
            min(len(g), rounded(total * len(g) / len(every), len(g), self.rounding)) for g in groups
        ]


@dataclass(frozen=True)
class CostTarget(Budget):
    """What keeps the sum over layers of the tokens at a share of what it is without reduction
    (FrameFusion, arXiv 2501.01986).

    With N tokens at first and n_i in the layers before, all layers from here on may have
    (cost * layers * N - sum n_i) / (layers still to come).

    Attributes:
        cost: the share, from 0 to 1.
        layers: of the decoder; the released code has 28 for every model.
        after: in place of acting wherever it stands: only at the first site after one where less
            than this share of the tokens left.
        rounding: see `probe.ablate.reduction.budget.rounded`.
    """

    cost: float = 0.3
    layers: int = 28
    after: float | None = None
    rounding: str = "round"

    def counts(self, c: Candidates, groups: list[Index], score: np.ndarray) -> list[int]:
        sizes = [len(group) for group in groups]
        if self.after is not None and settled(c, self.after) != 1:
            return sizes
        rate = affordable(c, self.cost, self.layers)
        return [min(n, rounded(rate * n, n, self.rounding)) for n in sizes]


def original(c: Candidates) -> float:
    """Tokens before any reduction of the run; the mass of those left where it is not known."""
    every = c if c.whole is None else c.whole
    return float(every.total or every.mass.sum())


def affordable(c: Candidates, cost: float, layers: int) -> float:
    """Fraction of the candidates that can stay until the last layer at this cost.

    Raises:
        ProbeError: the layers before have already spent more.
    """
    if not 0 < cost <= 1:
        raise ProbeError(f"cost={cost}; it is a share above 0 and at most 1")
    every = c if c.whole is None else c.whole
    left = cost * layers * original(c) - sum(every.spent)
    if left < 0 or len(every.spent) >= layers:
        raise ProbeError(
            f"cost={cost} of {layers} layers is already spent after {len(every.spent)} layers; "
            "give a larger cost=, or reduce earlier"
        )
    return min(1.0, left / ((layers - len(every.spent)) * max(1, len(every))))


def settled(c: Candidates, share: float) -> int:
    """Sites since the first one where less than this share of the tokens left; 0 before it."""
    every = c if c.whole is None else c.whole
    counts = [original(c), *every.spent]
    small = [1 - after / before < share for before, after in pairwise(counts)]
    return len(small) - small.index(True) if any(small) else 0


def schedule(rates: Sequence[float], rounding: str = "floor") -> list[tuple[int, OfOriginal]]:
    """Sites of a schedule: each layer where its rate falls, and the budget there.

    Args:
        rates: fraction of the original tokens in each layer, never rising.
        rounding: see `probe.ablate.reduction.budget.rounded`.

    Raises:
        ProbeError: a rate above the one before it, or out of [0, 1].
    """
    for layer, (before, rate) in enumerate(pairwise((1.0, *rates))):
        if not 0 <= rate <= before:
            raise ProbeError(
                f"schedule: rate {rate} in layer {layer} after {before}; rates are from 0 to 1 "
                "and never rise"
            )
    falls = enumerate(pairwise((1.0, *rates)))
    return [(layer, OfOriginal(rate, rounding)) for layer, (before, rate) in falls if rate < before]


def scheduled(rates: Sequence[float], size: int, rounding: str = "floor") -> list[int]:
    """Tokens in each layer under a schedule, for the cost before anything runs.

    Args:
        rates: fraction of the original tokens in each layer.
        size: original tokens.
        rounding: see `probe.ablate.reduction.budget.rounded`.
    """
    return [min(size, rounded(rate * size, size, rounding)) for rate in rates]


def sigmoid(layers: int, middle: float, steepness: float, least: float = 0.0) -> tuple[float, ...]:
    """Rates that fall along a sigmoid from near 1 to `least` (P-Sigmoid).

    Args:
        layers: of the decoder.
        middle: where the rate is halfway, as a fraction of the depth.
        steepness: of the fall, per depth; above 0.
        least: rate that it tends to.
    """
    depth = (layer / layers for layer in range(layers))
    return tuple(least + (1 - least) / (1 + math.exp(steepness * (d - middle))) for d in depth)
