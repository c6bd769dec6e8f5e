"""AnswerConfidence: is the answer as often right as the model is sure?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.linguistic_bias import log_probabilities
from probe.diagnose.pool_rows import NAN, Row, append
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

    from probe.diagnose.case import Case


@dataclass(frozen=True)
class AnswerConfidence(Diagnosis):
    """Calibration of the answer's own confidence: ECE, Brier score, risk against coverage.

    Values: `confidence`, probability of the likeliest of the possible answers among them, by first
    tokens (of all tokens where none are given); `right`; `ahead`, confidence minus that of the
    second; `entropy` of the answers, nats.

    Pooled, besides the means, by `probe.study.statistics.calibration`: `ece` (bins of equal mass),
    `brier`, `aurc`, area under the error rate by coverage, and `aurc_best`, that of the best order
    with so many errors. A constant confidence equal to the accuracy has ECE 0, so read it beside
    the Brier score. Costs nothing beyond the untouched run.

    Attributes:
        bins: of the ECE; None for 15, and 10 below 500 cases.
    """

    bins: int | None = None

    section: ClassVar[str] = "hallucination"
    needs: ClassVar[tuple[str, ...]] = ("gold",)

    def measure(self, case: Case) -> Values:
        """The confidence of one answer."""
        log_p = log_probabilities(case, case.run)
        order = np.sort(log_p)[::-1]
        gold = case.answers.index(case.gold) if case.answers else case.margin.target_id
        p = np.exp(log_p)
        return {
            "confidence": float(np.exp(order[0])),
            "right": float(log_p.argmax() == gold),
            "ahead": float(np.exp(order[0]) - np.exp(order[1])),
            "entropy": float(-(p * np.where(p > 0, log_p, 0)).sum()),
        }

    def pool(self, table: pd.DataFrame) -> pd.DataFrame:
        """Means, and calibration."""
        return append(super().pool(table), calibration_rows(table, self.bins))


def calibration_rows(table: pd.DataFrame, bins: int | None = None) -> list[Row]:
    """ECE, Brier score and area of a table with the columns confidence, right and video."""
    from probe.study.statistics_calibration import calibration

    count, videos = len(table), table["video"].to_numpy()
    clusters = len(set(videos))
    fit = min(bins or (15 if count >= 500 else 10), count)
    right = table["right"].to_numpy(float)
    best = ("aurc_best", best_area(right), NAN, NAN, count, clusters)
    try:
        found = calibration(table["confidence"], right, videos, bins=fit)
    except ProbeError:  # one video, or no case
        return [
            *((name, NAN, NAN, NAN, count, clusters) for name in ("ece", "brier", "aurc")),
            best,
        ]
    estimates = {"ece": found.ece, "brier": found.brier, "aurc": found.area}
    return [*((n, e.value, e.low, e.high, e.n, e.clusters) for n, e in estimates.items()), best]


def best_area(right: np.ndarray) -> float:
    """Area under the risk-coverage curve where every right answer comes before every wrong one."""
    if not len(right):
        return NAN
    seen = np.arange(1, len(right) + 1)
    return float((np.maximum(0, seen - right.sum()) / seen).mean())
