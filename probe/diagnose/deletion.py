"""Deletion: the right answer's probability as visual tokens leave or come, by a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.ablate.reduce import Reduce
from probe.ablate.reduction.parts import Score
from probe.ablate.scores import Norm
from probe.ablate.sites import Layer
from probe.capture.base import Capture
from probe.diagnose import token_order
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.importance.attention import AttentionMap
from probe.diagnose.importance.base import ImportanceMap
from probe.diagnose.importance.gradients import RelevanceMap
from probe.diagnose.importance.prior import RandomMap
from probe.diagnose.keeping import Keeping, keeping_of
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.diagnose.case import Case

WAYS = ("deletion", "insertion")


@dataclass(frozen=True)
class Deletion(Diagnosis):
    """Areas under the right answer's probability while visual tokens leave by a score.

    Deletion: the tokens that the score puts highest leave first; a score that knows what the
    answer hangs on has a small area. Insertion: they come first; its area is large (Petsiuk et al.
    2018, arXiv 1806.07421, there for pixels). Visual tokens are out of the sequence before
    `layer`, at their own positions, as in "Generic token compression ... from an explainability
    perspective", which expects relevance < attention < random in deletion.

    Attributes:
        by: importance maps, or scores of reductions, such as Norm() or, from layer 1 on,
            LastQuery().
        removed: shares of the tokens, beside 0 and 1.
        layer: first decoder layer that works without them; 0 for before the first.

    Gives "deletion SCORE" and "insertion SCORE", 0 to 1, by the trapezoid rule over the share
    removed; the array `curves` [way, by, removed] of probabilities of the right answer's first
    token. By default one untouched run, one with a backward pass and 32 reduced ones.
    """

    section: ClassVar[str] = "redundancy"
    source: ClassVar[str] = "RISE (arXiv 1806.07421)"

    by: Sequence[ImportanceMap | Score] = (
        RelevanceMap(),
        AttentionMap(layer=1),
        Norm(),
        RandomMap(),
    )
    removed: Sequence[float] = (0.25, 0.5, 0.75, 0.9)
    layer: int = 0

    def reads(self, case: Case) -> Sequence[Capture]:
        maps = [one for one in self.by if isinstance(one, ImportanceMap)]
        return [capture for one in maps for capture in one.reads(case)]

    def measure(self, case: Case) -> Values:
        import xarray as xr

        inside = sorted(set(self.removed))
        if not inside or not 0 < inside[0] <= inside[-1] < 1:
            raise ProbeError(f"{self.kind}: removed={self.removed}; shares lie between 0 and 1")
        case.read(self.reads(case))
        keeping = keeping_of(case, layer=self.layer, owner=self.kind)
        total = len(keeping.tokens)
        ends = keeping.probability(np.arange(total)), keeping.probability(np.zeros(0, np.int64))
        counts = [total - round(share * total) for share in inside]
        table = np.empty((2, len(self.by), len(inside) + 2))
        table[..., 0], table[..., -1] = ends
        for number, by in enumerate(self.by):
            for way in (0, 1):
                table[way, number, 1:-1] = self._curve(case, keeping, by, counts, last=way == 0)
        shares = np.array([0.0, *(1 - count / total for count in counts), 1.0])
        names = [str(by) for by in self.by]
        coords = {"way": list(WAYS), "by": names, "removed": shares}
        attrs = {"units": "1", "description": "probability of the right answer's first token"}
        areas = (np.diff(shares) * (table[..., 1:] + table[..., :-1]) / 2).sum(-1)
        values: dict = {
            f"{way} {name}": float(areas[i, j])
            for i, way in enumerate(WAYS)
            for j, name in enumerate(names)
        }
        values["curves"] = xr.DataArray(table, coords, list(coords), attrs=attrs)
        return values

    def _curve(
        self,
        case: Case,
        keeping: Keeping,
        by: ImportanceMap | Score,
        counts: Sequence[int],
        last: bool,
    ) -> list[float]:
        """Probabilities with so many tokens: the last ones of the order, or the first."""
        if isinstance(by, Score):
            score = -by if last else by
            site = Layer(self.layer)
            made = [Reduce(at=site, score=score, keep_tokens=count) for count in counts]
            return [keeping.read(keeping.again.run([one]))[2] for one in made]
        order = token_order.order(by.scores(case))
        order = order[::-1] if last else order
        return [keeping.probability(order[:count]) for count in counts]
