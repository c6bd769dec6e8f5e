"""Budgets that depend on sizes alone: how many tokens each group keeps, and how it is rounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Budget, Index
from probe.errors import ProbeError

_EPSILON = 1e-9  # 0.29 * 100 is 28.999999999999996 in floating point; it is 29


@dataclass(frozen=True)
class Keep(Budget):
    """The same fraction of every group.

    Attributes:
        keep: fraction in [0, 1].
        rounding: see `rounded`; "drop" is FastV's N - round(N R).
        least: never fewer than this of a group that has them.
    """

    keep: float
    rounding: str = "drop"
    least: int = 0

    @property
    def inert(self) -> bool:
        return self.keep == 1

    def counts(self, c: Candidates, groups: list[Index], score: np.ndarray) -> list[int]:
        return [self.of(len(group)) for group in groups]

    def of(self, size: int) -> int:
        """Tokens kept of a group."""
        fraction(self, self.keep)
        return min(size, max(self.least, rounded(size * self.keep, size, self.rounding)))

    def expected(self, sizes: list[int]) -> int | None:
        return sum(self.of(size) for size in sizes)


@dataclass(frozen=True)
class Count(Budget):
    """The same number of tokens of every group, or all where a group has fewer."""

    count: int

    def counts(self, c: Candidates, groups: list[Index], score: np.ndarray) -> list[int]:
        return [min(self.count, len(group)) for group in groups]

    def expected(self, sizes: list[int]) -> int | None:
        return sum(min(self.count, size) for size in sizes)


@dataclass(frozen=True)
class Equal(Budget):
    """The same fraction everywhere, counted as the methods count it.

    Attributes:
        keep: fraction in [0, 1].
        per: what is rounded: each "group"; each "frame" of a group, and then summed (FastVID,
            HoliTom); or the "pool" of all groups, divided evenly among them.
        rounding: see `rounded`.
        least: never fewer than this of a group that has them.
        share, other: of each rounded count only int(count * share), or with `other` the remainder
            of that. FastVID: of int(196 * 0.1) = 19 tokens a frame, share=0.4 is 7, the other 12.
        block, extra: counts are whole multiples of `block`, and `extra` above. DART (arXiv
            2502.11494): 8 and 4.
        sizes: frames are as large as in this "piece" of the step, or in the whole "step".
    """

    keep: float
    per: str = "group"
    rounding: str = "floor"
    least: int = 0
    share: float | None = None
    other: bool = False
    block: int = 1
    extra: int = 0
    sizes: str = "piece"

    @property
    def inert(self) -> bool:
        return self.keep == 1 and self.share is None

    def counts(self, c: Candidates, groups: list[Index], score: np.ndarray) -> list[int]:
        rate = fraction(self, self.keep)
        return self.at(rate, [len(group) for group in groups], self._frames(c, groups))

    def expected(self, sizes: list[int]) -> int | None:
        rate = fraction(self, self.keep)
        return None if self.per == "frame" else sum(self.at(rate, sizes, []))

    def at(self, rate: float, sizes: list[int], frames: list[list[int]]) -> list[int]:
        """Counts at a rate.

        Args:
            rate: fraction of the tokens.
            sizes: of the groups.
            frames: sizes of the frames of each group; looked at with per="frame" only.
        """
        if self.per not in ("group", "frame", "pool"):
            raise ProbeError(f'{self.kind}: per="{self.per}"; it is "group", "frame" or "pool"')
        if self.per == "pool":
            total = self._count(rate, sum(sizes))
            return apportioned([1.0] * len(sizes), total, sizes, spill=True, rounding="largest")
        if self.per == "frame":
            wanted = [sum(self._count(rate, n) for n in each) for each in frames]
        else:
            wanted = [self._count(rate, size) for size in sizes]
        return [min(n, max(self.least, k)) for n, k in zip(sizes, wanted, strict=True)]

    def _count(self, rate: float, size: int) -> int:
        count = rounded(size * rate, size, self.rounding)
        if self.share is not None:
            part = int(count * self.share + _EPSILON)
            count = count - part if self.other else part
        return min(size, count // self.block * self.block + self.extra)

    def _frames(self, c: Candidates, groups: list[Index]) -> list[list[int]]:
        if self.sizes not in ("piece", "step"):
            raise ProbeError(f'{self.kind}: sizes="{self.sizes}"; it is "piece" or "step"')
        if self.per != "frame":
            return []
        if self.sizes == "piece" or c.whole is None:
            return [np.unique(c.frame[g], return_counts=True)[1].tolist() for g in groups]
        ids, size = np.unique(c.whole.frame, return_counts=True)
        of = dict(zip(ids.tolist(), size.tolist(), strict=True))
        return [[of[frame] for frame in np.unique(c.frame[g]).tolist()] for g in groups]


@dataclass(frozen=True)
class Correct(Equal):
    """A fraction of the tokens there were before the steps before this one: the rate is raised to
    min(1, keep * original / left), where the mass tells the originals (HoliTom, EarlyTom).
    """

    rounding: str = "ceil"

    def counts(self, c: Candidates, groups: list[Index], score: np.ndarray) -> list[int]:
        every = c if c.whole is None else c.whole
        rate = min(1.0, fraction(self, self.keep) * float(every.mass.sum()) / max(1, len(every)))
        return self.at(rate, [len(group) for group in groups], self._frames(c, groups))

    def expected(self, sizes: list[int]) -> int | None:
        return None


def rounded(exact: float, size: int, how: str) -> int:
    """A number of tokens of `size` as a whole number.

    Args:
        exact: fractional count, from 0 to size.
        size: of the group.
        how: "floor" int(), "ceil", "round" half to even, "drop" size - round(size - exact).

    Raises:
        ProbeError: `how` is none of these.
    """
    if how == "drop":
        return size - round(size - exact)
    if how == "round":
        return round(exact)
    if how == "floor":
        return math.floor(exact + _EPSILON)
    if how == "ceil":
        return math.ceil(exact - _EPSILON)
    raise ProbeError(f'rounding="{how}" is not known; there are "floor", "ceil", "round", "drop"')


def apportioned(
    shares: Sequence[float], total: int, caps: Sequence[int], spill: bool, rounding: str
) -> list[int]:
    """`total` tokens divided in proportion to shares.

    Args:
        shares: non-negative; all zero counts as all equal.
        total: tokens to divide.
        caps: most of each.
        spill: whether what a cap cuts off goes to the others, as long as they have room.
        rounding: "largest" gives the tokens that rounding down leaves to the largest remainders,
            the earlier of equal ones; otherwise as `rounded`, and the sum may differ from total.
    """
    share, cap = np.asarray(shares, float), np.asarray(caps, np.int64)
    share = np.ones(len(share)) if not share.sum() > 0 else share
    exact, full = np.zeros(len(share)), np.zeros(len(share), bool)
    while not full.all():
        room = total - cap[full].sum()
        weight = share[~full].sum()
        exact[full] = cap[full]
        exact[~full] = room * (share[~full] / weight if weight > 0 else 1 / (~full).sum())
        over = ~full & (exact > cap)
        if not spill or not over.any():
            break
        full |= over
    exact = np.minimum(exact, cap)
    if rounding != "largest":
        whole = [rounded(float(e), int(n), rounding) for e, n in zip(exact, cap, strict=True)]
        return [min(max(0, k), int(n)) for k, n in zip(whole, cap, strict=True)]
    count = np.floor(exact + _EPSILON).astype(np.int64)
    left = round(float(exact.sum())) - int(count.sum())
    for g in np.argsort(-(exact - count).round(9), kind="stable"):
        if left > 0 and count[g] < cap[g]:
            count[g] += 1
            left -= 1
    return count.tolist()


def fraction(owner: Budget, keep: float) -> float:
    """Refuse what is no fraction.

    Raises:
        ProbeError: it is not from 0 to 1.
    """
    if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 <= keep <= 1:
        raise ProbeError(f"{owner.kind}: keep={keep!r}; it is a fraction from 0 to 1")
    return float(keep)
