"""Text tokens as pivots, for reductions that drop what is like them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.scores_attention import AttentionScore
from probe.ablate.scores_text import rows_at, text_positions
from probe.errors import ProbeError
from probe.models.selection import Selection

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session


@dataclass(frozen=True)
class TextPivots(AttentionScore):
    """Not a score: cosines of each token with the text tokens whose keys have the largest norms,
    strongest first, as `readings["text_pivots"]` of the candidates.

    DART (Wen et al. 2025, arXiv 2502.11494) takes 4 by the L1 norm of their keys.

    Attributes:
        layer: whose keys; as in `LastQuery`.
        count: how many.
        among: the text tokens; "after" is all text behind the visual tokens, as in DART's code.
        p: of the norm.
    """

    count: int = 4
    among: Selection = "after"
    p: float = 1.0

    def check(self, session: Session) -> None:
        """Refuse more pivots than there are text tokens."""
        there = len(text_positions(session.layout, self.among))
        if not isinstance(self.count, int) or not 1 <= self.count <= there:
            raise ProbeError(f"{self.kind}: count={self.count}; there are {there} text tokens")

    def pivots(self, session: Session, call: AttentionCall) -> Int[np.ndarray, " pivot"]:
        """Layout positions of the pivots, strongest first; ties go to the earlier."""
        text = text_positions(session.layout, self.among)
        text = np.intersect1d(text, call.key_positions)
        key = call.key[:, call.key_index(text)].float().transpose(0, 1).flatten(1)
        order = key.norm(p=self.p, dim=-1).argsort(descending=True, stable=True)
        return text[order[: self.count].cpu().numpy()]

    @staticmethod
    def cosines(
        session: Session,
        x: Float[Tensor, "row channel"],
        positions: Int[np.ndarray, " position"],
        pivots: Int[np.ndarray, " pivot"],
        layer: int = 0,
    ) -> Float[Tensor, "position pivot"]:
        """Of tokens with pivots, from the stream that enters `layer`."""
        here, there = (rows_at(session, x, p, layer).float() for p in (positions, pivots))
        return normalize(here, dim=-1) @ normalize(there, dim=-1).T

    def score(self, c: Candidates) -> Tensor:
        raise ProbeError(f"{self.kind}: pivots are no score; the selection Pivots reads them")
