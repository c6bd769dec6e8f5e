"""AdjacentFrames: how alike neighbouring frames are in each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.similarity import FrameSimilarity
from probe.diagnose.state_statistics import StateStatistics

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.case import Case


@dataclass(frozen=True)
class AdjacentFrames(Diagnosis):
    """Cosine of tokens of adjacent frames in the same cell, against any two visual tokens.

    States of a language model share a direction, so that any two are alike; what is more alike
    than that is redundancy in time. Definitions are ours. One forward, shared.

    Attributes:
        tokens: how many visual tokens the comparison takes, evenly spaced.

    Values: frame_similarity [layer, pair]; any_two [layer]: mean cosine of two visual tokens,
    all pairs of different ones. similarity_first and similarity_last layer; above_any_first,
    above_any_last: the same minus any_two.
    """

    tokens: int = 1024

    def reads(self, case: Case) -> list[Capture]:
        return [FrameSimilarity(), StateStatistics(self.tokens)]

    def measure(self, case: Case) -> Values:
        import xarray as xr

        adjacent = case.of(FrameSimilarity())
        any_two = case.of(StateStatistics(self.tokens)).sel(statistic="mean cosine").values
        line = adjacent.mean("pair").values.astype(float)
        return {
            "frame_similarity": adjacent,
            "any_two": xr.DataArray(
                any_two,
                {"layer": np.arange(len(any_two))},
                ["layer"],
                attrs={"units": "1", "description": "mean cosine of two different visual tokens"},
            ),
            "similarity_first": float(line[0]),
            "similarity_last": float(line[-1]),
            "above_any_first": float(line[0] - any_two[0]),
            "above_any_last": float(line[-1] - any_two[-1]),
        }
