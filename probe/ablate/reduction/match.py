"""Controls at exactly the same number of tokens: a reduction brought to a given count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from probe.ablate.reduction.build import Step
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.weights import Weights


def matched(w: Weights, count: int, c: Candidates, steps: Sequence[Step]) -> Weights:
    """The reduction with exactly `count` outputs: those of the lowest score leave, or dropped
    tokens of the highest score stay as they are.

    Args:
        w: what a control made of the candidates.
        count: outputs that it must have.
        c: the candidates.
        steps: of the control; the first score among them ranks, else tokens are evenly spaced.
    """
    if len(w) == count:
        return w
    ranking = next((step.ranking for step in steps if step.ranking is not None), None)
    if ranking is None:
        from probe.ablate.scores import Uniform

        ranking = Uniform()
    score = ranking.score(c).double().cpu().numpy()
    if len(w) > count:
        best = np.argsort(-score[w.anchor], kind="stable")[:count]
        return w.take(np.sort(best))
    dropped = np.setdiff1d(np.arange(len(c)), w.anchor)
    best = dropped[np.argsort(-score[dropped], kind="stable")[: count - len(w)]]
    return Weights.stack([w, Weights.selection(best, len(c), c.mass)]).raster()
