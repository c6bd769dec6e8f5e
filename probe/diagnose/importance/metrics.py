"""How well maps find tokens that are known to matter; many maps at once.

Every function takes scores [map, token] and returns one number per map [map], NaN where it is
undefined. Ties count as what a random order of the tied tokens gives on average; average precision
takes them together, as scikit-learn does.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

Scores = Float[np.ndarray, "map token"]
Numbers = Float[np.ndarray, " map"]
Truth = Bool[np.ndarray, " token"]


def auroc(scores: Scores, truth: Truth) -> Numbers:
    """Chance that a token of the evidence scores above another one."""
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return np.full(len(scores), np.nan)
    ranks = rankdata(scores, axis=1)[:, truth].sum(1)
    found = (ranks - positive * (positive + 1) / 2) / (positive * negative)
    return np.where(np.isnan(scores).any(1), np.nan, found)


def average_precision(scores: Scores, truth: Truth) -> Numbers:
    """Mean precision over the recall that each threshold adds; by chance the share of evidence."""
    found = np.full(len(scores), np.nan)
    if not truth.any() or truth.all():
        return found
    for number, row in enumerate(scores):
        if np.isnan(row).any():
            continue
        order = np.argsort(-row, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(row[order])), len(row) - 1)
        hits = truth[order].cumsum()[ends]
        found[number] = np.diff(hits, prepend=0) @ (hits / (ends + 1)) / hits[-1]
    return found


def pointing(scores: Scores, truth: Truth) -> Numbers:
    """Pointing game: the token with the highest score shows the evidence, 1 or 0."""
    return precision(scores, truth, 1)


def precision(scores: Scores, truth: Truth, count: int) -> Numbers:
    """Share of evidence among the `count` tokens with the highest scores."""
    if not truth.any() or truth.all():
        return np.full(len(scores), np.nan)
    edge = -np.sort(-scores, axis=1)[:, count - 1 : count]
    above, tied = scores > edge, scores == edge
    places = (count - above.sum(1)) / np.maximum(tied.sum(1), 1)
    found = ((above & truth).sum(1) + places * (tied & truth).sum(1)) / count
    return np.where(np.isnan(scores).any(1), np.nan, found)


def frame_recall(scores: Scores, truth: Truth, group: Int[np.ndarray, " token"]) -> Numbers:
    """Share of the frames with evidence among as many frames with the highest mean score."""
    frames, place = np.unique(group, return_inverse=True)
    member = (place[:, None] == np.arange(len(frames))).astype(float)
    shown = truth.astype(float) @ member > 0
    return precision(scores @ member / member.sum(0), shown, max(1, int(shown.sum())))


def precision_within(scores: Scores, truth: Truth, group: Int[np.ndarray, " token"]) -> Numbers:
    """Inside the frames that have evidence: its share among as many top tokens as show it."""
    here = np.isin(group, group[truth])
    return precision(scores[:, here], truth[here], max(1, int(truth.sum())))
