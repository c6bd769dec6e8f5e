"""Selections: which tokens of a group are kept. By score or order, and combinations of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Chosen, Exactly, Index, Part, Score, Select
from probe.errors import ProbeError


def leaves_of(*parts: Part | None) -> tuple[Score, ...]:
    """The scores inside of parts that hold other parts."""
    return tuple(leaf for part in parts if part is not None for leaf in part.leaves())


def best(group: Index, score: np.ndarray) -> Index:
    """The group by falling score; ties go to the earlier token."""
    return group[np.argsort(-score[group], kind="stable")]


@dataclass(frozen=True)
class TopK(Exactly):
    """The largest scores; ties go to the earlier token. In order of position."""

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        kept = np.sort(best(group, score)[:count])
        return Chosen(kept, kept)


@dataclass(frozen=True)
class Threshold(Select):
    """Scores of at least `tau`; of those, where there is a budget, at most its best.

    Attributes:
        tau: smallest score that is kept.
        least: this many stay (the best) even where fewer reach `tau`.
    """

    tau: float
    least: int = 0

    @property
    def inert(self) -> bool:
        return self.tau == -np.inf

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        reached = int((score[group] >= self.tau).sum())
        kept = np.sort(best(group, score)[: min(count, max(reached, self.least))])
        return Chosen(kept, kept)


@dataclass(frozen=True)
class Prefix(Exactly):
    """The first tokens of the group, as the nested queries of MQT (Hu et al., 2024)."""

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        return Chosen(group[:count], group[:count])


@dataclass(frozen=True)
class Then(Select):
    """`first` chooses `share` of the count, `second` the others among what is left; unselected
    tokens may be merged into those of `second` only.

    Attributes:
        first, second: selections.
        share: fraction of the count for `first`, rounded down; or a whole number.
    """

    first: Select
    second: Select
    share: float | int

    def leaves(self) -> tuple[Score, ...]:
        return leaves_of(self.first, self.second)

    @property
    def exact(self) -> bool:
        return self.first.exact and self.second.exact

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        whole = isinstance(self.share, int)
        mine = min(int(self.share) if whole else int(count * self.share + 1e-9), count)
        kept = self.first.choose(c, group, score, mine).centres
        left = np.setdiff1d(group, kept)
        other = self.second.choose(c, left, score, max(0, count - len(kept)))
        return Chosen(np.concatenate([kept, other.centres]), other.targets)


@dataclass(frozen=True)
class Union(Select):
    """What either chooses, each asked for the whole count; in order of position."""

    first: Select
    second: Select

    def leaves(self) -> tuple[Score, ...]:
        return leaves_of(self.first, self.second)

    @property
    def inert(self) -> bool:
        return self.first.inert or self.second.inert

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        both = [one.choose(c, group, score, count).centres for one in (self.first, self.second)]
        kept = np.union1d(*both)
        return Chosen(kept, kept)


@dataclass(frozen=True)
class Protect(Select):
    """A key set that always stays, beside what `select` chooses: the best by another score.

    In several reductions one after the other the key set stays the same, because none of its
    tokens is ever dropped and each carries its score along. Key set of MustDrop (Liu et al., 2024).

    Attributes:
        select: chooses `count` of all, or of the others with `counted`.
        score: of the key set.
        count: size of the key set.
        per: it is of each "frame" of the group, or of the whole "group".
        counted: the key set counts towards the budget.
    """

    select: Select
    score: Score
    count: int
    per: str = "frame"
    counted: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per not in ("frame", "group"):
            raise ProbeError(f'{self.kind}: per="{self.per}" is not "frame" or "group"')

    def leaves(self) -> tuple[Score, ...]:
        return (*self.score.leaves(), *leaves_of(self.select))

    def choose(self, c: Candidates, group: Index, score: np.ndarray, count: int) -> Chosen:
        values = self.score.score(c).detach().double().cpu().numpy()
        inside = [group]
        if self.per == "frame":
            inside = [group[c.frame[group] == frame] for frame in np.unique(c.frame[group])]
        keys = np.concatenate([best(part, values)[: self.count] for part in inside])
        if self.counted:
            others = np.setdiff1d(group, keys)
            room = max(0, count - len(keys))
            kept = np.union1d(keys, self.select.choose(c, others, score, room).centres)
        else:
            kept = np.union1d(keys, self.select.choose(c, group, score, count).centres)
        return Chosen(kept, kept)
