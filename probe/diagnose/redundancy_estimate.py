"""RedundancyEstimate: how many visual tokens could go, guessed without a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from probe.capture.base import Capture
from probe.diagnose import token_order
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.importance.attention import AttentionMap
from probe.diagnose.importance.values import ContributionMap
from probe.diagnose.keeping import keeping_of
from probe.diagnose.similarity import FrameSimilarity

if TYPE_CHECKING:
    from probe.diagnose.case import Case


@dataclass(frozen=True)
class RedundancyEstimate(Diagnosis):
    """A cheap guess of how many visual tokens can go before the answer flips.

    `estimate` takes the margin of the model's own answer with every token, with none, and with a
    few shares drawn at random, and follows straight lines between them over log(1 + count) to the
    largest count at which the margin is zero; what is above that can go. `estimate_none` does so
    with every token and none alone. All are our own definitions; `TokensNeeded` measures what they
    guess, and `RedundancyCheck` how well they do.

    Attributes:
        shares: of the tokens, of the random runs.

    Gives `estimate` and `estimate_none`, tokens that can go, and of the untouched run alone:
    `attention_effective` and `contribution_effective`, exp(entropy) of the last position's
    attention to visual tokens and of the positive direct contributions, in tokens;
    `attention_video`, attention to all of them, mean over layers and heads; `frame_cosine`, of
    adjacent frames at the language model's input.

    It takes two untouched runs and 1 + len(shares) short ones, forward only.
    """

    section: ClassVar[str] = "redundancy"

    shares: Sequence[float] = (1 / 64, 1 / 24, 1 / 8)

    def reads(self, case: Case) -> Sequence[Capture]:
        similarity = [FrameSimilarity()] if len(case.x.layout.groups) > 1 else []
        return [*AttentionMap().reads(case), *ContributionMap().reads(case), *similarity]

    def measure(self, case: Case) -> Values:
        case.read(self.reads(case))
        keeping = keeping_of(case, owner=self.kind)
        total, draw = len(keeping.tokens), token_order.rng(case, 1)
        counts = sorted({max(1, round(share * total)) for share in self.shares})
        margins = [keeping.margin(draw.permutation(total)[:count]) for count in counts]
        ends = [(0, keeping.margin(np.zeros(0, np.int64))), (total, keeping.full)]
        attention = AttentionMap().scores(case)
        contribution = token_order.values(case, ContributionMap())
        several = len(case.x.layout.groups) > 1
        cosine = case.of(FrameSimilarity()).values[0].mean() if several else float("nan")
        return {
            "estimate": total - crossing([*ends, *zip(counts, margins, strict=True)]),
            "estimate_none": total - crossing(ends),
            "attention_effective": effective(attention),
            "contribution_effective": effective(np.maximum(contribution, 0)),
            "attention_video": float(attention.sum()),
            "frame_cosine": float(cosine),
        }


def crossing(points: Sequence[tuple[int, float]]) -> float:
    """The largest count at which a margin is zero, on lines over log(1 + count); 0 for nowhere.

    Args:
        points: counts and margins.
    """
    rising = sorted(points)
    place = np.log1p([count for count, _ in rising])
    margin = np.array([value for _, value in rising])
    below = np.flatnonzero(margin[:-1] <= 0)
    if margin[-1] <= 0:
        return float(rising[-1][0])
    if not len(below):
        return 0.0
    i = below[-1]
    step = -margin[i] / (margin[i + 1] - margin[i])
    return float(np.expm1(place[i] + step * (place[i + 1] - place[i])))


def effective(weights: Float[np.ndarray, " token"]) -> float:
    """Exponential of the Shannon entropy of weights of sum 1; NaN where all are 0."""
    if not weights.sum() > 0:
        return float("nan")
    share = weights[weights > 0] / weights.sum()
    return float(np.exp(-(share * np.log(share)).sum()))
