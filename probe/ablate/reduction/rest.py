"""What becomes of the tokens that were not selected: they leave, or leave something behind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Chosen, Index, Rest, Score, Select
from probe.ablate.reduction.select import best, leaves_of
from probe.ablate.reduction.select_cluster import DPCKNN
from probe.errors import ProbeError


@dataclass(frozen=True)
class Drop(Rest):
    """They leave; a centre stays as it is."""

    def rows(self, c: Candidates, group: Index, chosen: Chosen, score: np.ndarray) -> list[tuple]:
        return [(centre, [centre], [1.0], c.mass[centre]) for centre in chosen.centres]


@dataclass(frozen=True)
class Summary(Rest):
    """One token more, of all that was not selected, at the place of one of them. Nothing where
    everything was selected. The extra token of LLaVA-PruMerge (Shang et al., 2024).

    Attributes:
        weight: "mean"; "mass", a mean weighted by mass; "score", a mean weighted by score; "sum",
            the sum of score times feature (PruMerge).
        rest: what becomes of the selected ones (and of the others beside the summary).
        anchor: whose place it takes: the "first" or "last" of them, or the "top" by score.
    """

    weight: str = "mean"
    rest: Rest = Drop()
    anchor: str = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight not in ("mean", "mass", "score", "sum"):
            raise ProbeError(
                f'{self.kind}: weight="{self.weight}" is not "mean", "mass", "score" or "sum"'
            )
        if self.anchor not in ("first", "last", "top"):
            raise ProbeError(f'{self.kind}: anchor="{self.anchor}" is not "first", "last" or "top"')

    def leaves(self) -> tuple[Score, ...]:
        return leaves_of(self.rest)

    def rows(self, c: Candidates, group: Index, chosen: Chosen, score: np.ndarray) -> list[tuple]:
        kept = self.rest.rows(c, group, chosen, score)
        others = np.setdiff1d(group, chosen.centres)
        if len(others) == 0:
            return kept
        place = {"first": others[0], "last": others[-1], "top": best(others, score)[0]}
        values = {"mean": np.ones(len(others)), "mass": c.mass[others]}.get(
            self.weight, score[others]
        )
        if self.weight != "sum":
            total = values.sum()
            if total <= 0:
                raise ProbeError(
                    f'{self.kind}: weight="{self.weight}" has a total of {total:g}; use "mean"'
                )
            values = values / total
        return [*kept, (place[self.anchor], others, values, c.mass[others].sum())]


def _merge() -> Rest:
    from probe.ablate.reduction.merge import Merge

    return Merge("distance")


@dataclass(frozen=True)
class Recycle(Rest):
    """The best of what was not selected are clustered, and each cluster is one token; the others
    leave. SparseVLM (Zhang et al., 2024).

    Attributes:
        top: fraction of the unselected that is recycled, rounded down, plus `extra`; at 0 nothing.
        ratio: clusters per recycled token, rounded down, plus `extra`.
        select: centres of the clusters.
        rest: how a cluster becomes one token; Merge("distance") by default.
        extra: added to both counts, as in its code.
    """

    top: float = 0.3
    ratio: float = 0.1
    select: Select = DPCKNN(k=None)
    rest: Rest | None = None
    extra: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("top", "ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ProbeError(
                    f"{self.kind}: {name}={getattr(self, name)}; it is a fraction from 0 to 1"
                )

    def leaves(self) -> tuple[Score, ...]:
        return leaves_of(self.select, self.rest)

    def rows(self, c: Candidates, group: Index, chosen: Chosen, score: np.ndarray) -> list[tuple]:
        kept = Drop().rows(c, group, chosen, score)
        others = np.setdiff1d(group, chosen.centres)
        if len(others) == 0 or self.top == 0:
            return kept
        some = np.sort(best(others, score)[: int(len(others) * self.top + 1e-9) + self.extra])
        count = min(len(some), int(len(some) * self.ratio + 1e-9) + self.extra)
        clusters = self.select.choose(c, some, score, count)
        rest = _merge() if self.rest is None else self.rest
        return [*kept, *rest.rows(c, some, clusters, score)]
