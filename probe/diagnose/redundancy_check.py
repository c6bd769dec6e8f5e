"""RedundancyCheck: how well estimates of redundancy rank clips by what can really go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.capture.base import Capture
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.redundancy_estimate import RedundancyEstimate
from probe.diagnose.tokens_needed import TokensNeeded
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

    from probe.diagnose.case import Case

MEASURED = ("removable", "removable_random")
ESTIMATES = (
    "estimate", "estimate_none", "attention_effective", "contribution_effective",
    "attention_video", "frame_cosine", "margin_own",
)  # fmt: skip


@dataclass(frozen=True)
class RedundancyCheck(Diagnosis):
    """Estimates of redundancy beside the measured number of tokens that can go.

    A case gives the numbers of `RedundancyEstimate` and of `TokensNeeded`. Over many cases `pool`
    gives Spearman's rank correlation of each estimate with `removable`, the most that can go along
    any order that was tried, and with `removable_random`, the mean over random orders, named
    "spearman ESTIMATE removable", with an interval over videos; "... where some are needed" is of
    the cases alone whose answer is lost without any visual token. (Elsewhere every token can go,
    and an estimate that has seen the run without them knows it.)

    Attributes:
        estimate, measured: the two.
    """

    section: ClassVar[str] = "redundancy"

    estimate: RedundancyEstimate = RedundancyEstimate()
    measured: TokensNeeded = TokensNeeded()

    def reads(self, case: Case) -> Sequence[Capture]:
        return [*self.estimate.reads(case), *self.measured.reads(case)]

    def measure(self, case: Case) -> Values:
        return {**self.estimate.measure(case), **self.measured.measure(case)}

    def pool(self, table: pd.DataFrame) -> pd.DataFrame:
        return correlations(table)


def correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation of estimates with measured numbers.

    Args:
        table: a row a case: video, and margin_none, and columns of `MEASURED` and `ESTIMATES`
            that are there.

    Returns:
        name, value, low, high, n, clusters; NaN where one of the two is the same everywhere.
    """
    import pandas as pd

    from probe.diagnose.pool import COLUMNS
    from probe.study.statistics import spearman

    rows = []
    for measured in MEASURED:
        for estimate in ESTIMATES:
            if measured not in table or estimate not in table:
                continue
            for ending in ("", " where some are needed"):
                part = table.query("margin_none <= 0") if ending else table
                both = part.dropna(subset=[estimate, measured])
                name = f"spearman {estimate} {measured}{ending}"
                try:
                    found = spearman(both[estimate], both[measured], both["video"].to_numpy())
                    row = (found.value, found.low, found.high)
                except ProbeError:  # no ranks, or too few videos for an interval
                    row = (np.nan, np.nan, np.nan)
                rows.append((name, *row, len(both), both["video"].nunique()))
    return pd.DataFrame(rows, columns=list(COLUMNS))
