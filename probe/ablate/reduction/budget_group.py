"""Budgets that give some groups more than others, by a score of the group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from probe.ablate.reduction.budget import apportioned, fraction, rounded
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Budget, Index, Score
from probe.errors import ProbeError


@dataclass(frozen=True)
class Softmax(Budget):
    """A rate for each group: keep * (1 + p - mean of p), p the softmax of the groups' scores
    (VidCom2, arXiv 2505.14454). Before the rates are cut off at 1 their mean is `keep`.

    Attributes:
        keep: mean rate.
        score: of the tokens, its mean over a group counts; by default the step's.
        temperature: of the softmax; without end all groups are equal.
        rounding: see `probe.ablate.reduction.budget.rounded`.
        least: never fewer than this of a group that has them.
    """

    keep: float
    score: Score | None = None
    temperature: float = 0.01
    rounding: str = "round"
    least: int = 1

    @property
    def inert(self) -> bool:
        return self.keep == 1

    def leaves(self) -> tuple[Score, ...]:
        return () if self.score is None else self.score.leaves()

    def rates(self, means: Float[np.ndarray, " group"]) -> Float[np.ndarray, " group"]:
        """Rates of groups with these scores, not yet cut off at 1.

        Raises:
            ProbeError: temperature is not above 0.
        """
        if not self.temperature > 0:
            raise ProbeError(f"softmax: temperature={self.temperature}; it is above 0")
        p = np.exp((means - means.max()) / self.temperature)
        p /= p.sum()
        return fraction(self, self.keep) * (1 + p - p.mean())

    def counts(self, c: Candidates, groups: list[Index], score: np.ndarray) -> list[int]:
        rates = np.minimum(self.rates(group_means(self.score, c, groups, score)), 1.0)
        wanted = [
            rounded(float(r) * len(g), len(g), self.rounding)
            for r, g in zip(rates, groups, strict=True)
        ]
        return [min(len(g), max(self.least, k)) for k, g in zip(wanted, groups, strict=True)]


@dataclass(frozen=True)
class Proportional(Budget):
    """Tokens divided in proportion to a power of the groups' scores (QuoTA, arXiv 2503.08689).

    Attributes:
        keep: fraction of all candidates; or
        tokens: their number.
        score: of the tokens, its mean over a group counts; by default the step's. Not negative.
        power: 2 in QuoTA; 0 makes groups equal.
        cap: most tokens of a group, which has no more than its size anyway.
        rounding: "largest" gives the tokens that rounding down leaves to the largest remainders;
            otherwise see `probe.ablate.reduction.budget.rounded`.
        spill: whether what a cap cuts off goes to the other groups.
        room: whether a group may get more than its size, for what resizes it afterwards.
    """

    keep: float | None = None
    tokens: int | None = None
    score: Score | None = None
    power: float = 1.0
    cap: int | None = None
    rounding: str = "floor"
    spill: bool = False
    room: bool = False

    def leaves(self) -> tuple[Score, ...]:
        return () if self.score is None else self.score.leaves()

    def counts(self, c: Candidates, groups: list[Index], score: np.ndarray) -> list[int]:
        if (self.keep is None) == (self.tokens is None):
            raise ProbeError("proportional: give either keep= or tokens=")
        means = group_means(self.score, c, groups, score)
        if means.min(initial=0.0) < 0 or not np.isfinite(means).all():
            raise ProbeError(
                f"proportional: a group has score {means.min():.4g}; scores are not negative here"
            )
        total = self._total(len(c))
        sizes = [total if self.room else len(group) for group in groups]
        caps = sizes if self.cap is None else [min(size, self.cap) for size in sizes]
        top = means.max(initial=0.0)
        shares = ((means / top) ** self.power).tolist() if top > 0 else [1.0] * len(groups)
        return apportioned(shares, total, caps, self.spill, self.rounding)

    def expected(self, sizes: list[int]) -> int | None:
        if self.rounding != "largest" or not self.spill or self.cap is not None or self.room:
            return None
        return min(sum(sizes), self._total(sum(sizes)))

    def _total(self, size: int) -> int:
        if self.keep is not None:
            return rounded(fraction(self, self.keep) * size, size, "floor")
        return self.tokens or 0


@dataclass(frozen=True)
class Regions(Budget):
    """Tokens divided by how many of the best tokens fall into each group (HiRED, arXiv 2408.10945).

    The best are int(n * (1 - alpha)) of n tokens: of all candidates, where the groups are all
    there is; with `grid` of the first group, an overview of the picture that the others are crops
    of. Every count is rounded down, and some of the budget may stay unspent.

    Attributes:
        keep: fraction of all candidates.
        alpha: share of the budget for the overview.
        score: which tokens are best; by default the step's.
        grid: (rows, columns) of crops, in raster order after the overview.
        strips: count in horizontal strips of the flattened overview, as the released code does,
            in place of its cells.
    """

    keep: float = 0.2
    alpha: float = 0.5
    score: Score | None = None
    grid: tuple[int, int] | None = None
    strips: bool = False

    def leaves(self) -> tuple[Score, ...]:
        return () if self.score is None else self.score.leaves()

    def counts(self, c: Candidates, groups: list[Index], score: np.ndarray) -> list[int]:
        values = token_scores(self.score, c, score)
        total = int(len(c) * fraction(self, self.keep) + 1e-9)
        pool, parts, first = np.arange(len(c)), groups, []
        if self.grid is not None:
            if len(groups) != 1 + self.grid[0] * self.grid[1]:
                raise ProbeError(
                    f"regions: {len(groups)} groups are no overview and "
                    f"{self.grid[0]} x {self.grid[1]} crops; change grid=, or leave it out"
                )
            pool, parts = groups[0], groups[1:]
            first = [min(int(total * fraction(self, self.alpha)), len(pool))]
        number = int(len(pool) * (1 - self.alpha) + 1e-9)
        best = pool[np.argsort(-values[pool], kind="stable")[:number]]
        hits = [np.isin(where, best).sum() for where in self._places(c, groups)]
        share = np.array(hits) / max(1, sum(hits))
        left = min(total - sum(first), sum(len(part) for part in parts))
        given = [int(left * s + 1e-9) for s in share]
        return first + [min(len(part), k) for part, k in zip(parts, given, strict=True)]

    def _places(self, c: Candidates, groups: list[Index]) -> list[Index]:
        """Where the best tokens are counted, for each group after the overview."""
        if self.grid is None:
            return groups
        rows, cols = self.grid
        if self.strips:
            return np.array_split(groups[0], rows * cols)
        row, col = c.row[groups[0]], c.col[groups[0]]
        down, right = row * rows // (row.max() + 1), col * cols // (col.max() + 1)
        return [groups[0][down * cols + right == crop] for crop in range(rows * cols)]


def token_scores(own: Score | None, c: Candidates, score: np.ndarray) -> np.ndarray:
    """A budget's own score, or that of the step, [token] in float64."""
    return score if own is None else own.score(c).detach().double().cpu().numpy()


def group_means(
    own: Score | None, c: Candidates, groups: list[Index], score: np.ndarray
) -> Float[np.ndarray, " group"]:
    """Mean score of each group."""
    values = token_scores(own, c, score)
    return np.array([values[group].mean() if len(group) else 0.0 for group in groups])
