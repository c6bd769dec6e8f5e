"""Budgets whose total depends on the data: outliers, ranks, thresholds; uniqueness of frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from probe.ablate.reduction.budget import fraction
from probe.ablate.reduction.budget_group import token_scores
from probe.ablate.reduction.budget_layers import original
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Budget, Index, Score, Select
from probe.ablate.reduction.segment_time import cosines, means, vectors
from probe.errors import ProbeError


@dataclass(frozen=True)
class Adaptive(Budget):
    """As many tokens of each group as the data ask for.

    Attributes:
        how: "iqr": scores above Q3 + factor * (Q3 - Q1) (LLaVA-PruMerge, arXiv 2403.15388);
            "threshold": scores above tau; "rank": the rank of the values that `score` reads,
            [token, value] (SparseVLM, arXiv 2410.04417).
        score: by default the step's.
        factor: of the interquartile range.
        tau: the threshold.
        tolerance: singular values below this share of the largest are no rank; by default the
            larger side of the matrix times the precision of float32.
        least, most: bounds of each count.
    """

    how: str = "iqr"
    score: Score | None = None
    factor: float = 1.5
    tau: float | None = None
    tolerance: float | None = None
    least: int = 1
    most: int | None = None

    def leaves(self) -> tuple[Score, ...]:
        return () if self.score is None else self.score.leaves()

    def counts(self, c: Candidates, groups: list[Index], score: np.ndarray) -> list[int]:
        if self.how not in ("iqr", "rank", "threshold"):
            raise ProbeError(f'adaptive: how="{self.how}"; it is "iqr", "rank" or "threshold"')
        if (self.how == "threshold") != (self.tau is not None):
            raise ProbeError('adaptive: tau= goes with how="threshold", and with nothing else')
        if self.how == "rank":
            wanted = [self.rank(self._rows(c)[group]) for group in groups]
        else:
            values = token_scores(self.score, c, score)
            wanted = [int((values[g] > self._level(values[g])).sum()) for g in groups]
        most = [len(g) if self.most is None else min(len(g), self.most) for g in groups]
        return [min(m, max(self.least, k)) for k, m in zip(wanted, most, strict=True)]

    def rank(self, rows: Float[np.ndarray, "token value"]) -> int:
        """The rank of a matrix at the tolerance."""
        if not rows.size:
            return 0
        limit = self.tolerance
        limit = max(rows.shape) * float(np.finfo(np.float32).eps) if limit is None else limit
        singular = np.linalg.svd(rows, compute_uv=False)
        return int((singular > limit * singular[0]).sum())

    def _level(self, values: np.ndarray) -> float:
        if self.tau is not None:
            return self.tau
        low, high = np.quantile(values, [0.25, 0.75]) if len(values) else (0.0, 0.0)
        return float(high + self.factor * (high - low))

    def _rows(self, c: Candidates) -> np.ndarray:
        rows = None if self.score is None else c.readings.get(self.score)
        if rows is None or rows.ndim < 2:
            raise ProbeError(
                'adaptive: how="rank" needs score= with a score that reads a row of values a token'
            )
        return rows.flatten(1).double().cpu().numpy()


@dataclass(frozen=True)
class Unique(Budget):
    """More tokens for groups that are unlike the others (UniComp).

    The uniqueness of a group is the mean of all cosines between mean features, less the mean of
    its own, times the root of the number of groups. K = keep * original tokens are divided by its
    softmax and rounded down; a group gets at most min(size, 2 * int(K / groups)), and what that
    cuts off goes to the others evenly. With room for that many in every group all get it.

    Attributes:
        keep: fraction of the original tokens, before groups were merged.
        features: a score that reads rows of values (the pooling head), in place of the features
            at the site.
        select: where it finds fewer centres than the budget, what it leaves goes to the others.
    """

    keep: float
    features: Score | None = None
    select: Select | None = None

    def leaves(self) -> tuple[Score, ...]:
        own = () if self.features is None else self.features.leaves()
        return own if self.select is None else (*own, *self.select.leaves())

    def counts(self, c: Candidates, groups: list[Index], score: np.ndarray) -> list[int]:
        sizes = np.array([len(group) for group in groups])
        total = int(fraction(self, self.keep) * original(c) + 1e-9)
        if total >= len(c):
            return sizes.tolist()
        cap = np.minimum(sizes, max(1, total // len(groups) * 2))
        given = cap.copy()
        if cap.sum() > total:
            given = shared(softmax(self.uniqueness(c, groups)), total, cap)
        if self.select is None:
            return given.tolist()
        found = np.array([len(self.select.choose(c, g, score, len(g)).centres) for g in groups])
        short = found < given
        if found.sum() > given.sum() and not short.all():
            given[~short] += int((given - found)[short].sum()) // int((~short).sum())
        return np.minimum(given, found).tolist()

    def uniqueness(self, c: Candidates, groups: list[Index]) -> Float[np.ndarray, " group"]:
        """Of each group, scaled."""
        x = means(vectors(self, c, self.features), groups)
        alike = cosines(x[:, None], x[None]).mean(1).numpy()
        return (alike.mean() - alike) * len(groups) ** 0.5


def softmax(values: Float[np.ndarray, " group"]) -> Float[np.ndarray, " group"]:
    """exp(values), divided by their sum."""
    weight = np.exp(values - values.max())
    return weight / weight.sum()


def shared(share: Float[np.ndarray, " group"], total: int, cap: np.ndarray) -> np.ndarray:
    """floor(share * total) up to a cap; what a cap cuts off goes to the others in equal whole
    parts, again and again until no cap cuts or too little is left. As in the released code, a
    group filled in an earlier round counts among the others, so that a few tokens stay unspent.

    Args:
        share: of each group; sum 1.
        total: tokens.
        cap: most of each group.
    """
    given = np.floor(share * total + 1e-9).astype(np.int64)
    over = given > cap
    while over.any() and not over.all():
        given = np.minimum(given, cap)
        more = max(0, total - int(given.sum())) // int((~over).sum())
        if more == 0:
            break
        given[~over] += more
        over = given > cap
    return np.minimum(given, cap)
