"""Maps that know nothing of the question: what every other map has to beat."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from probe.capture.activations import Activations
from probe.capture.base import Capture
from probe.diagnose.importance.base import ImportanceMap

if TYPE_CHECKING:
    from probe.diagnose.case import Case


@dataclass(frozen=True)
class CentreMap(ImportanceMap):
    """Nearness to the centre of the frame: minus the distance, in sides of the frame. Tokens that
    have no place in their frame are all at its centre.
    """

    def scores(self, case: Case) -> Float[np.ndarray, " token"]:
        layout, tokens = case.x.layout, case.video_tokens
        distance = np.zeros(len(tokens))
        for number, visual in enumerate(layout.visuals):
            if visual.cells is None or visual.grid is None:
                continue
            here = (layout.visual[tokens] == number) & (layout.row[tokens] >= 0)
            rows = visual.grid.row_edges.mean(1)[layout.row[tokens[here]]]
            cols = visual.grid.col_edges.mean(1)[layout.col[tokens[here]]]
            distance[here] = np.hypot(rows - 0.5, cols - 0.5)
        return -distance


@dataclass(frozen=True)
class UniformMap(ImportanceMap):
    """The same for every token."""

    def scores(self, case: Case) -> Float[np.ndarray, " token"]:
        return np.zeros(len(case.video_tokens))


@dataclass(frozen=True)
class RandomMap(ImportanceMap):
    """A random number for every token.

    Attributes:
        seed: other maps of the same case; the case's own seed and name count as well.
    """

    seed: int = 0

    def scores(self, case: Case) -> Float[np.ndarray, " token"]:
        rng = np.random.default_rng([self.seed, case.seed, zlib.crc32(case.id.encode())])
        return rng.random(len(case.video_tokens))


@dataclass(frozen=True)
class UnlikeMap(ImportanceMap):
    """How unlike the other tokens of its frame a token is at the language model's input: 1 - cosine
    with their mean. Objects stand out, whatever is asked.
    """

    def reads(self, case: Case) -> Sequence[Capture]:
        return (Activations("residual", "video", 0),)

    def scores(self, case: Case) -> Float[np.ndarray, " token"]:
        x = case.of(self.reads(case)[0]).isel(layer=0).values.astype(np.float64)
        group, found = case.x.layout.group[case.video_tokens], np.zeros(len(x))
        for number in np.unique(group):
            here = x[group == number]
            mean = here.mean(0)
            lengths = np.linalg.norm(here, axis=-1) * np.linalg.norm(mean)
            found[group == number] = 1 - here @ mean / np.maximum(lengths, 1e-12)
        return found
