"""EffectiveRank: how many directions the visual tokens use in each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.state_statistics import StateStatistics

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.case import Case

KINDS = ("raw", "centred")


@dataclass(frozen=True)
class EffectiveRank(Diagnosis):
    """exp of the entropy of the singular values, made to sum to 1 (Roy and Vetterli 2007).

    Of the visual tokens' residual stream [token, channel] as it enters each layer. "centred" is
    without their mean: a direction that all share hides the others. It is at most the smaller of
    tokens and channels; `share` is its part of that. One forward, shared.

    Attributes:
        tokens: at most so many visual tokens, evenly spaced; the result is exact for these.

    Values: effective_rank [kind, layer]; effective_rank_first, effective_rank_last,
    centred_rank_first, centred_rank_last; centred_rank_share_first, centred_rank_share_last.
    """

    source: ClassVar[str] = "effective rank (Roy and Vetterli 2007)"

    tokens: int = 1024

    def reads(self, case: Case) -> list[Capture]:
        return [StateStatistics(self.tokens)]

    def measure(self, case: Case) -> Values:
        import xarray as xr

        found = case.of(StateStatistics(self.tokens))
        raw, centred = found.values[:, 0], found.values[:, 1]
        most = found.attrs["most"]
        about = f"effective rank {found.attrs['description']}, at most {most}"
        return {
            "effective_rank": xr.DataArray(
                [raw, centred],
                {"kind": list(KINDS), "layer": found.layer.values},
                ["kind", "layer"],
                attrs={"units": "1", "description": about},
            ),
            "effective_rank_first": float(raw[0]),
            "effective_rank_last": float(raw[-1]),
            "centred_rank_first": float(centred[0]),
            "centred_rank_last": float(centred[-1]),
            "centred_rank_share_first": float(centred[0] / most),
            "centred_rank_share_last": float(centred[-1] / most),
        }
