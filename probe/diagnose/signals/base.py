"""What a signal is: a score for each token of an answer that should tell made-up ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from probe.errors import ProbeError
from probe.spec import Spec

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.signals.answer import Answer

Scores = Mapping[str, Float[np.ndarray, " token"]]
OVER = ("mean", "worst", "sum")


@dataclass(frozen=True)
class Signal(Spec):
    """Base of all signals. Implement `scores`.

    A signal is data. It reads a teacher-forced answer and gives one score for each scored token,
    and may give companions beside it. NaN where a score is undefined.

    Attributes:
        signs: by name of a score, or its beginning: "H+" where larger is more hallucinated, "H-"
            where larger is more grounded, "" where it is neither. The first one is the signal's.
        source: the paper whose signal it is; empty for one of our own.
        join: how tokens become a word: its "first" token's score, their "mean" or "sum".
    """

    signs: ClassVar[Mapping[str, str]] = {}
    source: ClassVar[str] = ""
    join: ClassVar[str] = "first"

    def reads(self, answer: Answer) -> Sequence[Capture]:
        """Captures of the teacher-forced run; those of all signals are read in one pass."""
        return ()

    def scores(self, answer: Answer) -> Scores:
        """Score of each scored token by name, the signal's own first."""
        raise NotImplementedError(f"{self.kind} has no scores()")

    @property
    def sign(self) -> str:
        """Of the signal's own score."""
        return next(iter(self.signs.values()))

    def sign_of(self, name: str) -> str:
        """Of one of its scores: that of the longest name in `signs` that it begins with."""
        known = max((key for key in self.signs if name.startswith(key)), key=len)
        return self.signs[known]

    def words(self, answer: Answer) -> Scores:
        """Score of each of `answer.words`."""
        return {
            name: np.array([join(values[list(w.tokens)], self.join) for w in answer.words])
            for name, values in self.scores(answer).items()
        }

    def summary(self, answer: Answer, over: str = "mean") -> dict[str, float]:
        """One number a score for the whole answer.

        Args:
            answer: the answer.
            over: "mean", "sum" or "worst" (by its sign) over content words; over the words
                there are where none has content, over tokens where there are no words.

        Raises:
            ProbeError: another `over`.
        """
        if over not in OVER:
            raise ProbeError(f'{self.kind}: over="{over}"; there are {", ".join(OVER)}')
        content = np.array([word.content for word in answer.words], bool)
        kept = content if content.any() else ~content
        found = self.words(answer) if len(kept) else self.scores(answer)
        kept = kept if len(kept) else np.ones(len(answer.scored), bool)
        return {
            name: _over(values[kept], over, self.sign_of(name)) for name, values in found.items()
        }


def join(values: Float[np.ndarray, " token"], how: str) -> float:
    """Scores of a word's tokens as one."""
    if how == "first":
        return float(values[0])
    return float(values.sum() if how == "sum" else values.mean())


def _over(values: Float[np.ndarray, " word"], over: str, sign: str) -> float:
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan")
    if over == "worst" and sign:
        return float(values.max() if sign == "H+" else values.min())
    return float(values.sum() if over == "sum" else values.mean())


def risk(sign: str) -> float:
    """Factor that turns a score into one that is larger for what is made up."""
    return -1.0 if sign == "H-" else 1.0
