"""Keeping: what becomes of an answer when only some of the visual tokens are left."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from probe.errors import ProbeError

if TYPE_CHECKING:
    from jaxtyping import Int

    from probe.ablate.base import Ablation
    from probe.diagnose.case import Case
    from probe.engine.again import Again
    from probe.engine.result import Run

KEEPS = ("own", "gold")


class Keeping:
    """Margins of one answer with sets of visual tokens, each set run once.

    The answer is fixed in the untouched run. Its margin is logit(answer) - max logit(rivals), by
    first tokens, whichever rival that is; above zero the answer is kept. Tokens that are left keep
    their positions.

    Args:
        case: the case.
        keeps: which answer: "own", the one the model gives with every token (the best of
            `case.answers`, or the first token of all where there are none); "gold", the right one.
        layer: the decoder layer from which on the tokens are gone; 0 for before the first.
        owner: whose it is, for errors.

    Raises:
        ProbeError: another `keeps`, or no right answer to keep.
    """

    def __init__(self, case: Case, keeps: str = "own", layer: int = 0, owner: str = "") -> None:
        if keeps not in KEEPS:
            raise ProbeError(f'{owner}: keeps="{keeps}"; there are {", ".join(KEEPS)}')
        if keeps == "gold" and case.gold is None:
            raise ProbeError(f'{owner}: keeps="gold" needs the right answer (gold=)')
        self.case, self.layer = case, layer
        self.tokens: Int[np.ndarray, " token"] = case.video_tokens
        row = case.run.logits[0]
        every = np.arange(len(row))
        known = [case.first(answer) for answer in case.answers]
        if keeps == "gold":
            self.target = int(case.margin.target_id)
        else:
            self.target = max(known, key=lambda i: row[i]) if known else int(row.argmax())
        rivals = np.array(sorted(set(known) - {self.target}), dtype=np.int64)
        self.rivals = rivals if len(rivals) else every[every != self.target]
        self.full = self.of(case.run)
        self._seen: dict[bytes, tuple[float, float, float]] = {}

    @cached_property
    def again(self) -> Again:
        """The untouched run that all others go on from."""
        from probe.engine.again import Again

        return Again(self.case.model, self.case.x, (self.layer,))

    @property
    def versus(self) -> int:
        """The best rival in the untouched run."""
        return int(self.rivals[self.case.run.logits[0][self.rivals].argmax()])

    @property
    def runs(self) -> int:
        """How many reduced runs there were so far."""
        return len(self._seen)

    def of(self, run: Run) -> float:
        """The margin of the answer in a run."""
        row = run.logits[0]
        return float(row[self.target] - row[self.rivals].max())

    def ablation(self, kept: Int[np.ndarray, " kept"]) -> Ablation:
        """The reduction that leaves these of the clip's tokens, by their numbers among them."""
        from probe.ablate.reduce import Reduce
        from probe.ablate.sites import Layer

        gone = np.delete(self.tokens, kept)
        made = Reduce(at=Layer(self.layer), of=tuple(gone.tolist()), keep_tokens=0, score=None)
        return made.labelled(f"{len(kept)} of {len(self.tokens)} visual tokens")

    def margin(self, kept: Int[np.ndarray, " kept"]) -> float:
        """The margin with these of the clip's tokens, by their numbers among them."""
        return self.full if len(kept) == len(self.tokens) else self.measured(kept)[0]

    def gold_margin(self, kept: Int[np.ndarray, " kept"]) -> float:
        """The gold margin with these tokens: log p(right) - log p(best wrong answer), in nats."""
        return self.measured(kept)[1]

    def probability(self, kept: Int[np.ndarray, " kept"]) -> float:
        """Probability of the right answer's first token with these tokens."""
        return self.measured(kept)[2]

    def measured(self, kept: Int[np.ndarray, " kept"]) -> tuple[float, float, float]:
        """All three, from one run a set."""
        kept = np.unique(np.asarray(kept, dtype=np.int64))
        key = kept.tobytes()
        if key not in self._seen:
            whole = len(kept) == len(self.tokens)
            run = self.case.run if whole else self.again.run([self.ablation(kept)])
            self._seen[key] = self.read(run)
        return self._seen[key]

    def read(self, run: Run) -> tuple[float, float, float]:
        """The margin of the answer, the gold margin, and the right answer's probability."""
        return self.of(run), self.case.gold_margin(run), self.case.margin.probability(run)


def keeping_of(case: Case, keeps: str = "own", layer: int = 0, owner: str = "") -> Keeping:
    """The `Keeping` of a case that several diagnoses share: each set is run once."""
    key = (Keeping, keeps, layer)
    if key not in case.memo:
        case.memo[key] = Keeping(case, keeps, layer, owner)
    return case.memo[key]


def share_of(share: float, total: int, owner: str) -> int:
    """A share of the tokens as a number, at least one.

    Raises:
        ProbeError: no share above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ProbeError(f"{owner}: keep={share}; it is a share above 0 and at most 1")
    return max(1, round(share * total))
