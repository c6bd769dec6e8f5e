"""Occlusion: what changes without a block of video tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int

from probe.diagnose.importance.base import ImportanceMap
from probe.diagnose.importance.knockouts import knocked_out
from probe.diagnose.importance.reading import answer, pair
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.diagnose.case import Case
    from probe.models.layout import Layout

OF = ("margin", "absolute", "change")


@dataclass(frozen=True)
class OcclusionMap(ImportanceMap):
    """What changes when a block of video tokens is cut off from all text, in every layer (attention
    knockout, arXiv 2304.14767); each token has the value of its block. Video tokens still see each
    other.

    Attributes:
        of: "margin": how far logit(right answer) - logit(best wrong one) falls, positive where the
            block speaks for the right answer; the best wrong answer is that of each run.
            "absolute": its absolute value. "change": total variation distance between the
            distributions of the next token, 0 to 1.
        cells: side of a block, in cells of the frame.
        frames: length of a block, in frames that the model was given.

    It takes one untouched run, and the rows of text once a block; maps with the same blocks share.
    """

    always_shown: ClassVar[tuple[str, ...]] = ("of",)

    of: str = "margin"
    cells: int = 1
    frames: int = 4

    def scores(self, case: Case) -> Float[np.ndarray, " token"]:
        if self.of not in OF:
            raise ProbeError(f'{self.kind}: of="{self.of}"; there are {", ".join(OF)}')
        if min(self.cells, self.frames) < 1:
            raise ProbeError(f"{self}: cells and frames are at least 1")
        number = blocks(case.x.layout, self.cells, self.frames)
        logits = self._logits(case, number)
        if self.of == "change":
            p = logits.double().softmax(-1).numpy()
            return 0.5 * np.abs(p[1:] - p[0]).sum(-1)[number]
        margins = margins_of(case, logits)
        fall = (margins[0] - margins[1:])[number]
        return np.abs(fall) if self.of == "absolute" else fall

    def _logits(self, case: Case, number: Int[np.ndarray, " token"]) -> torch.Tensor:
        """[1 + block, vocab], untouched first; knocked out once a case."""
        key = "occlusion", self.cells, self.frames
        if key not in case.memo:
            sets = [case.video_tokens[number == n] for n in range(int(number.max()) + 1)]
            case.memo[key] = torch.from_numpy(knocked_out(case.model, case.x, sets))
        return case.memo[key]


def margins_of(
    case: Case, logits: torch.Tensor | Sequence[torch.Tensor]
) -> Float[np.ndarray, " run"]:
    """logit(right answer) - logit(best wrong one) of each run's last prompt position."""
    about = answer(case)
    if about["target"] is None:  # the model's own answer is that of the untouched run
        about["target"] = int(logits[0].argmax())
    pairs = [pair(row, **about) for row in logits]
    return np.array([float(row[a] - row[b]) for row, (a, b) in zip(logits, pairs, strict=True)])


def blocks(layout: Layout, cells: int, frames: int) -> Int[np.ndarray, " token"]:
    """Number of the block of each video token: neighbours in rows, columns and time of one clip.
    Tokens without a place in their frame are blocks of as many, by their order in it.
    """
    tokens = layout.select("video")
    group, visual = layout.group[tokens], layout.visual[tokens]
    starts = np.array([covers[0] for covers in layout.frames])[group]
    first = np.array([layout.visuals[v].first for v in visual])
    row, col = layout.row[tokens].copy(), layout.col[tokens].copy()
    loose = row < 0
    row[loose] = 0
    for number in np.unique(group[loose]):
        here = loose & (group == number)
        col[here] = np.arange(here.sum())
    size = np.where(loose, cells * cells, cells)
    keys = np.stack([visual, (starts - first) // frames, row // cells, col // size], 1)
    return np.unique(keys, axis=0, return_inverse=True)[1].ravel().astype(np.int64)
