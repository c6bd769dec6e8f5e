"""VideoContribution: what the clip's tokens write into the logit of the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.capture.contributions import Contributions
from probe.diagnose.signals.base import Scores, Signal

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.signals.answer import Answer

SOURCES = ("video", "all - video")


@dataclass(frozen=True)
class VideoContribution(Signal):
    """Direct contribution of the clip's tokens through attention to the logit of each token. Ours.

    video_logit: sum over layers and heads, in logits. video_share: sum of its absolute values by
    layer and head, over that of all tokens, 0 to 1. Exact parts of the logit (see
    `Contributions`); what reaches it through other tokens is not in it.

    Attributes:
        most: of the first so many tokens; NaN behind them.
    """

    most: int = 16

    signs: ClassVar[Mapping[str, str]] = {"video_logit": "H-", "video_share": "H-"}

    def reads(self, answer: Answer) -> Sequence[Capture]:
        """A decomposition for each token."""
        return [
            Contributions(int(token), step=int(step), sources=SOURCES)
            for token, step in zip(answer.targets, answer.scored[: self.most], strict=False)
        ]

    def scores(self, answer: Answer) -> Scores:
        """Of each token."""
        logit, share = np.full((2, len(answer.scored)), np.nan)
        for number, capture in enumerate(self.reads(answer)):
            parts = answer.of(capture, "attention").values  # [layer, head, source]
            size = np.abs(parts).sum((0, 1))
            logit[number], share[number] = parts[..., 0].sum(), size[0] / size.sum()
        return {"video_logit": logit, "video_share": share}
