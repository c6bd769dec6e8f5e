"""LayerCKA: how alike the layers of the language model are on the visual tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.state_statistics import StateCKA

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.case import Case


@dataclass(frozen=True)
class LayerCKA(Diagnosis):
    """Linear CKA (Kornblith et al. 2019) between what enters the layers, visual tokens as samples.

    `VisionSimilarity` has the same of the vision tower. One forward, shared.

    Attributes:
        tokens: at most so many visual tokens, evenly spaced; the result is exact for these.

    Values: cka [layer, other_layer]; cka_adjacent: mean over neighbouring layers; cka_ends: of
    the first and the last; cka_least: of the neighbours that are least alike, cka_least_layer:
    the first of them.
    """

    source: ClassVar[str] = "linear CKA (Kornblith et al. 2019, arXiv 1905.00414)"

    tokens: int = 1024

    def reads(self, case: Case) -> list[Capture]:
        return [StateCKA(self.tokens)]

    def measure(self, case: Case) -> Values:
        found = case.of(StateCKA(self.tokens))
        cka = found.values
        beside = np.diag(cka, 1)
        nan = float("nan")
        return {
            "cka": found,
            "cka_adjacent": float(beside.mean()) if len(beside) else nan,
            "cka_ends": float(cka[0, -1]),
            "cka_least": float(beside.min()) if len(beside) else nan,
            "cka_least_layer": float(beside.argmin()) if len(beside) else nan,
        }
