"""Maps from what attention moves: weight times value, by its length and its part in the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from probe.capture.base import Capture
from probe.diagnose.importance.base import ImportanceMap, Which, numbers, pick
from probe.diagnose.importance.last_read import LastRead
from probe.diagnose.importance.reading import answer

if TYPE_CHECKING:
    from probe.diagnose.case import Case


@dataclass(frozen=True)
class ValueNormMap(ImportanceMap):
    """Norm-weighted attention of the last prompt position (Kobayashi et al. 2020): the length of
    weight x value x W_O.

    Attributes:
        layer: a layer, "each", or None for the mean over layers.
        head: a head, "each", or None for the length of the sum over heads, which is what the layer
            adds to the stream; the paper's quantity is that of a head.

    It needs nothing but the untouched run.
    """

    source: ClassVar[str] = "arXiv 2004.10102"

    layer: Which = None
    head: Which = None

    @property
    def _capture(self) -> LastRead:
        return LastRead("vector" if self.head is None else "norm")

    def reads(self, case: Case) -> Sequence[Capture]:
        return (self._capture,)

    def each(self, case: Case) -> tuple[ImportanceMap, ...]:
        layers = numbers(self.layer, case.model.n_layers)
        heads = numbers(self.head, case.model.n_heads)
        return tuple(replace(self, layer=a, head=b) for a in layers for b in heads)

    def scores(self, case: Case) -> Float[np.ndarray, " token"]:
        return pick(self, case.of(self._capture).values, self.layer, self.head)


@dataclass(frozen=True)
class ContributionMap(ImportanceMap):
    """Direct contribution of each video token, through attention at the last prompt position, to
    logit(right answer) - logit(best wrong one): summed over heads, and over layers where `layer`
    is None. What a token does by way of other tokens is not in it.

    Attributes:
        layer: a layer, "each", or None for the sum over layers.

    Signed: negative speaks for the rival. It needs nothing but the untouched run.
    """

    layer: Which = None

    def reads(self, case: Case) -> Sequence[Capture]:
        return (LastRead("contribution", **answer(case)),)

    def each(self, case: Case) -> tuple[ImportanceMap, ...]:
        return tuple(replace(self, layer=n) for n in numbers(self.layer, case.model.n_layers))

    def scores(self, case: Case) -> Float[np.ndarray, " token"]:
        values = case.of(self.reads(case)[0]).values
        count = len(values) if self.layer is None else 1
        return count * pick(self, values, self.layer)
