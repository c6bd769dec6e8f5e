"""Maps from gradients of the answer's margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from probe.capture.base import Capture
from probe.diagnose.importance.backward import Backward
from probe.diagnose.importance.base import ImportanceMap
from probe.diagnose.importance.reading import answer
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.diagnose.case import Case

OF = ("product", "absolute", "norm")


@dataclass(frozen=True)
class GradientMap(ImportanceMap):
    """Gradient of logit(right answer) - logit(best wrong one) at each merged video embedding.

    Attributes:
        of: "product": gradient times input, summed over channels (Shrikumar et al. 2016), signed;
            "absolute": its absolute value; "norm": the length of the gradient.

    It needs one way back through the decoder, shared with `RelevanceMap`.
    """

    source: ClassVar[str] = "arXiv 1605.01713"
    always_shown: ClassVar[tuple[str, ...]] = ("of",)

    of: str = "product"

    def reads(self, case: Case) -> Sequence[Capture]:
        if self.of not in OF:
            raise ProbeError(f'{self.kind}: of="{self.of}"; there are {", ".join(OF)}')
        return (Backward(**answer(case)),)

    def scores(self, case: Case) -> Float[np.ndarray, " token"]:
        what = "norm" if self.of == "norm" else "product"
        values = case.of(self.reads(case)[0]).sel(what=what).values[case.video_tokens]
        return np.abs(values) if self.of == "absolute" else values


@dataclass(frozen=True)
class RelevanceMap(ImportanceMap):
    """Relevance rollout: attention times gradient, from the last prompt position to the input.

    R <- R + E R per layer, R = 1 at first, E the mean over heads of the positive part of attention
    weight x its gradient (Chefer et al. 2021, self-attention); the map is the row of the last
    prompt position. The gradient is that of logit(right answer) - logit(best wrong one), where the
    paper takes the class logit alone.

    It needs one way back through the decoder, shared with `GradientMap`.
    """

    source: ClassVar[str] = "arXiv 2103.15679"

    def reads(self, case: Case) -> Sequence[Capture]:
        return (Backward(**answer(case)),)

    def scores(self, case: Case) -> Float[np.ndarray, " token"]:
        return case.of(self.reads(case)[0]).sel(what="relevance").values[case.video_tokens]
