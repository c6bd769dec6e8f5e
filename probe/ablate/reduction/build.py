"""Step: one way to build the weights of a reduction, from components; and the steps in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from probe.ablate.reduction.budget import Count, Keep
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Budget, Index, Pooling, Rest, Score, Segment, Select, Split
from probe.ablate.reduction.rest import Drop
from probe.ablate.reduction.segment import Whole
from probe.ablate.reduction.select import TopK
from probe.ablate.reduction.weights import Weights
from probe.errors import ProbeError
from probe.spec import Spec


@dataclass(frozen=True)
class Step(Spec):
    """One reduction of candidates. With nothing given it is the identity.

    Attributes:
        segment: groups inside which tokens are chosen.
        split: pieces of a group, and `pieces` one Step for each; a piece without a score of its
            own uses this step's.
        score: what is worth keeping; of all candidates, before they are split.
        keep, keep_tokens, budget: how many stay: a fraction of each group, a number of each group,
            or a budget. At most one of the three; without any everything stays, or what `select`
            decides by itself.
        select: which become centres.
        rest: what becomes of the others.
        pool: in place of score, budget, select and rest: pooling of each group.
    """

    segment: Segment = Whole()
    split: Split | None = None
    pieces: tuple[Step, ...] = ()
    score: Score | None = None
    keep: float | None = None
    keep_tokens: int | None = None
    budget: Budget | None = None
    select: Select = TopK()
    rest: Rest = Drop()
    pool: Pooling | None = None

    def allowance(self) -> Budget | None:
        """The budget, however it was written.

        Raises:
            ProbeError: more than one, or a fraction out of [0, 1].
        """
        given = [v for v in (self.keep, self.keep_tokens, self.budget) if v is not None]
        if len(given) > 1:
            raise ProbeError(
                f"{self.kind}: give keep= (a fraction) or keep_tokens= (a number) or budget="
            )
        if self.keep is not None:
            if not isinstance(self.keep, int | float) or not 0 <= self.keep <= 1:
                raise ProbeError(f"{self.kind}: keep={self.keep}; it is a fraction from 0 to 1")
            return Keep(self.keep)
        if self.keep_tokens is not None:
            if not isinstance(self.keep_tokens, int) or self.keep_tokens < 0:
                raise ProbeError(f"{self.kind}: keep_tokens={self.keep_tokens}; it is a count")
            return Count(self.keep_tokens)
        return self.budget

    @property
    def ranking(self) -> Score | None:
        """The score, where something is chosen by it: not by a pool, nor where every piece has a
        score or a pool of its own.
        """
        own = [piece.pool is not None or piece.score is not None for piece in self.pieces]
        unused = self.pool is not None or (self.split is not None and all(own))
        return None if unused else self.score

    def leaves(self) -> tuple[Score, ...]:
        """Every score in it."""
        return tuple(dict.fromkeys(leaf for part in self._parts() for leaf in part.leaves()))

    @property
    def inert(self) -> bool:
        """True where parameters of a part are neutral; a pool may be one of single tokens."""
        return self.pool is not None or any(part.inert for part in self._parts())

    def _parts(self) -> list[Any]:
        own = (self.ranking, self.segment, self.split, self.allowance(), self.select, self.rest)
        own = (*own, self.pool)
        return [part for part in (*own, *self.pieces) if part is not None]


def weights(steps: Sequence[Step], c: Candidates, order: str = "raster") -> Weights:
    """The product of the steps; see `build`."""
    return build(steps, c, order)[0]


def build(
    steps: Sequence[Step], c: Candidates, order: str = "raster"
) -> tuple[Weights, Index, Index]:
    """The product of the steps, and which segment and piece each output is in.

    Args:
        steps: the first one first.
        c: the candidates.
        order: "raster" sorts the outputs by their anchors, "published" leaves them as the method
            makes them.
    """
    product = Weights.selection(np.arange(len(c)), len(c), c.mass)
    made = product
    for number, step in enumerate(steps):
        c = c.after(made) if number else c
        made, c = _build(step, replace(c, whole=None))
        if order == "raster":
            made = made.raster()
        product = made @ product
    return product, c.segment[made.anchor], c.piece[made.anchor]


def _build(step: Step, c: Candidates) -> tuple[Weights, Candidates]:
    """The weights of one step, and the candidates with their segments and pieces."""
    groups = step.segment.groups(c)
    segment, piece = c.segment.copy(), np.zeros(len(c), np.int64)
    if type(step.segment) is not Whole:
        for number, group in enumerate(groups):
            segment[group] = number
    c = replace(c, segment=segment)
    if step.pool is not None:
        made = [step.pool.weights(c.take(group)).within(group, len(c)) for group in groups]
        return Weights.stack(made, len(c)), c
    if step.ranking is not None:
        c = replace(c, readings=c.readings | {"score": step.ranking.score(c).double()})
    if step.split is not None:
        made = []
        for group in groups:
            for number, part in enumerate(step.split.parts(c, group)):
                piece[part] = number
                if len(part):
                    piece_of = replace(c.take(part), whole=c if c.whole is None else c.whole)
                    inner, _ = _build(step.pieces[number], piece_of)
                    made.append(inner.within(part, len(c)))
        return Weights.stack(made, len(c)), replace(c, piece=piece)
    score = c.readings.get("score", torch.zeros(len(c))).detach().double().cpu().numpy()
    budget = step.allowance()
    sizes = [len(group) for group in groups]
    counts = sizes if budget is None else budget.counts(c, groups, score)
    made = []
    for group, count in zip(groups, counts, strict=True):
        chosen = step.select.choose(c, group, score, count)
        made.append(Weights.of_rows(step.rest.rows(c, group, chosen, score), len(c)))
    return Weights.stack(made, len(c)), c
