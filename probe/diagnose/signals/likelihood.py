"""Signals of the answer's own likelihood: the baselines that cost nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.diagnose.signals.base import Scores, Signal

if TYPE_CHECKING:
    from probe.diagnose.signals.answer import Answer


@dataclass(frozen=True)
class NLL(Signal):
    """Negative log-likelihood -log p(y_t) of each token, in nats; a word's is their sum."""

    signs: ClassVar[Mapping[str, str]] = {"nll": "H+"}
    join: ClassVar[str] = "sum"

    def scores(self, answer: Answer) -> Scores:
        """From the teacher-forced run alone."""
        return {"nll": -answer.log_p[np.arange(len(answer.scored)), answer.targets]}


@dataclass(frozen=True)
class Entropy(Signal):
    """Entropy of the next-token distribution where each token is emitted, in nats.

    Attributes:
        normalised: divide by log |vocabulary|, so that uniform is 1.
    """

    normalised: bool = False

    signs: ClassVar[Mapping[str, str]] = {"entropy": "H+"}
    join: ClassVar[str] = "mean"

    def scores(self, answer: Answer) -> Scores:
        """From the teacher-forced run alone."""
        log_p = answer.log_p
        p = np.exp(log_p)
        entropy = -np.where(p > 0, p * log_p, 0).sum(-1)
        return {"entropy": entropy / np.log(log_p.shape[-1]) if self.normalised else entropy}


@dataclass(frozen=True)
class TokenMargin(Signal):
    """log p(y_t) less that of the best other token, in nats: a margin that needs no gold answer.

    For the model's own greedy answer it is at least 0. Ours.
    """

    signs: ClassVar[Mapping[str, str]] = {"margin": "H-"}

    def scores(self, answer: Answer) -> Scores:
        """From the teacher-forced run alone."""
        rows = np.arange(len(answer.scored))
        return {"margin": answer.log_p[rows, answer.targets] - rivals(answer)[1]}


@dataclass(frozen=True)
class OptionMargin(Signal):
    """Margin and entropy among the possible answers, by their first tokens, renormalised.

    option_margin = p(best) - p(second), option_entropy in nats over log(number of options).
    Options that begin with the same token are one option; with fewer than two both are NaN, as
    they are behind the first token.
    """

    signs: ClassVar[Mapping[str, str]] = {"option_margin": "H-", "option_entropy": "H+"}

    def scores(self, answer: Answer) -> Scores:
        """From the teacher-forced run alone."""
        margin, entropy = np.full((2, len(answer.scored)), np.nan)
        ids = sorted({answer.case.first(option) for option in answer.case.answers})
        if len(ids) > 1 and len(answer.scored) and answer.scored[0] == 0:
            p = np.exp(answer.log_p[0, ids] - np.logaddexp.reduce(answer.log_p[0, ids]))
            best = np.sort(p)[::-1]
            margin[0] = best[0] - best[1]
            entropy[0] = -(p[p > 0] * np.log(p[p > 0])).sum() / np.log(len(ids))
        return {"option_margin": margin, "option_entropy": entropy}


@dataclass(frozen=True)
class TokenIndex(Signal):
    """Number of the token in the answer, from 0: a control. Made-up words come late in captions,
    and many signals are functions of the index.
    """

    signs: ClassVar[Mapping[str, str]] = {"index": "H+"}

    def scores(self, answer: Answer) -> Scores:
        """The numbers."""
        return {"index": answer.scored.astype(float)}


def rivals(answer: Answer) -> tuple[np.ndarray, np.ndarray]:
    """Ids and log-probabilities [token] of the best other token at each scored one."""
    others = answer.log_p.copy()
    others[np.arange(len(others)), answer.targets] = -np.inf
    return others.argmax(-1), others.max(-1)
