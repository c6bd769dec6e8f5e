"""FrameRelevance: the score of a frame, asked before the run, as a score of its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from probe.ablate.frame_scores import FrameScorer, SaysYes, scored
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel


@dataclass(frozen=True)
class FrameRelevance(Score):
    """Every token of a frame has the score of the frame; where a family merges frames, their mean.

    It is asked before the run, so the frames themselves are scored, not their tokens.

    Attributes:
        scorer: what scores a frame.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"ahead"})

    scorer: FrameScorer = SaysYes()

    def ahead(self, model: VideoModel, x: Example) -> Float64[np.ndarray, " position"]:
        """The scores of the positions of the clips; 0 elsewhere.

        Raises:
            ProbeError: scores that are not finite, or below 0.
        """
        values = np.zeros(len(x.layout))
        if not x.clips:
            return values
        each = [scored(self.scorer, model, x, clip, range(len(clip))) for clip in x.clips]
        frames = np.concatenate(each)
        groups = [float(frames[list(members)].mean()) for members in x.layout.frames]
        inside = x.layout.group >= 0
        values[inside] = np.asarray(groups)[x.layout.group[inside]]
        return values

    def score(self, c: Candidates) -> Tensor:
        return torch.as_tensor(c.readings[self]).double()


def frames_for(seconds: float, base: int = 96, more: int = 64) -> int:
    """How many frames QuoTA takes of a clip: `base`, and up to `more` for an hour.

    Args:
        seconds: duration of the clip.
        base, more: the published numbers by default.
    """
    return base + int(seconds / 3600 * more)
