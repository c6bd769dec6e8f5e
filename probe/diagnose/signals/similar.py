"""Signals of likeness between the answer's states and visual tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.diagnose.signals.base import Scores, Signal
from probe.diagnose.signals.visual import VisualCosines, VisualLens
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.signals.answer import Answer


@dataclass(frozen=True)
class GLSim(Signal):
    """Global and local similarity of a word's state to the prompt and to patches (2508.19972).

    glsim = w x global + (1 - w) x local, with local the mean cosine of X[target, query] to
    X[image, j] over the patches j whose raw lens at X[image] gives the word's first token most
    probability, and global the cosine of X[image, last prompt token] to X[target, query]. Beside
    it glsim_local, glsim_global, and (ours) glsim_frame: the greatest local term of any temporal
    group, over the same share of its patches.

    Attributes:
        image, target: states; -1 is X[L] (normed), -2 the one before. The paper's for
            LLaVA-1.5-7B are L and L - 1.
        share: of the clip's tokens taken as patches: 32 of 576 in the paper.
        w: weight of the global term.
        variant: "paper", or "released", whose global term has the two states swapped.
        query: as released "predictor".
    """

    image: int = -1
    target: int = -2
    share: float = 32 / 576
    w: float = 0.6
    variant: str = "paper"
    query: str = "predictor"

    signs: ClassVar[Mapping[str, str]] = {
        "glsim": "H-",
        "glsim_local": "H-",
        "glsim_global": "H-",
        "glsim_frame": "H-",
    }
    source: ClassVar[str] = "arXiv 2508.19972"

    def pairs(self, answer: Answer) -> tuple[tuple[int, int], tuple[int, int]]:
        """(state of the prompt, state of the query) of the local and of the global term."""
        if self.variant not in ("paper", "released"):
            raise ProbeError(f'{self.kind}: variant="{self.variant}"; write "paper" or "released"')
        states = answer.case.model.n_layers + 1
        image, target = (s + states if s < 0 else s for s in (self.image, self.target))
        swapped = (target, image) if self.variant == "released" else (image, target)
        return (image, target), swapped

    def reads(self, answer: Answer) -> Sequence[Capture]:
        """Cosines, and the lens on the clip's tokens."""
        pairs = tuple(dict.fromkeys(self.pairs(answer)))
        cosines = VisualCosines(answer.predictors(self.query).tolist(), pairs)
        return [cosines, VisualLens(answer.columns)]

    def scores(self, answer: Answer) -> Scores:
        """Of each token, with the patches of the word it is in; NaN outside of words."""
        cosines, lens = (answer.of(capture) for capture in self.reads(answer))
        near, far = self.pairs(answer)
        local = cosines.sel(pair=f"{near[0]} {near[1]}").values
        overall = cosines.sel(pair=f"{far[0]} {far[1]}").values[:, -1]
        found = {name: np.full(len(answer.scored), np.nan) for name in self.signs}
        state = lens.sel(state=near[0])
        for word in answer.words:
            firsts = [spelt[0] for spelt in answer.word_ids(word)]
            says = state.sel(id=firsts).values.max(1)
            patches = self._most(says)
            for token in word.tokens:
                row = local[token, :-1]
                mean = float(row[patches].mean())
                found["glsim"][token] = self.w * overall[token] + (1 - self.w) * mean
                found["glsim_local"][token] = mean
                found["glsim_global"][token] = overall[token]
                found["glsim_frame"][token] = max(
                    float(row[here][self._most(says[here])].mean()) for here in _groups(answer)
                )
        return found

    def _most(self, says: np.ndarray) -> np.ndarray:
        count = max(1, round(self.share * len(says)))
        return np.argsort(-says, kind="stable")[:count]


@dataclass(frozen=True)
class CGC(Signal):
    """Cross-modal grounding consistency: mean of the greatest cosines of a token's state to the
    clip's tokens at the same state (2604.04863).

    cgc: mean over states 1 to L (the scalar is ours; the paper feeds the value of every state to a
    classifier) of the mean over the top share of cos(X[s, query], X[s, j]).

    Attributes:
        share: of the clip's tokens; 5 % in the release's configuration.
        query: as released "predictor".
    """

    share: float = 0.05
    query: str = "predictor"

    signs: ClassVar[Mapping[str, str]] = {"cgc": "H-"}
    source: ClassVar[str] = "arXiv 2604.04863"

    def reads(self, answer: Answer) -> Sequence[Capture]:
        """Cosines at every state."""
        pairs = tuple((s, s) for s in range(1, answer.case.model.n_layers + 1))
        return [VisualCosines(answer.predictors(self.query).tolist(), pairs)]

    def scores(self, answer: Answer) -> Scores:
        """Of each token."""
        cosines = answer.of(self.reads(answer)[0]).values[:, :, :-1]
        count = max(1, round(self.share * cosines.shape[2]))
        return {"cgc": np.sort(cosines, axis=2)[:, :, -count:].mean((0, 2))}


def _groups(answer: Answer) -> list[np.ndarray]:
    named = np.unique(answer.groups[answer.groups >= 0])
    return [np.flatnonzero(answer.groups == group) for group in named]
