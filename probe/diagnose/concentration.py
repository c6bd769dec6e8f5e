"""Concentration: do a few visual tokens bring the answer nearly all it gets?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from probe.diagnose.attention_shift import top_share
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.cells import clip_tokens, frame_labels
from probe.diagnose.importance.last_read import LastRead
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.case import Case


@dataclass(frozen=True)
class Concentration(Diagnosis):
    """How unequally visual tokens contribute to the row that emits the answer.

    A token's flow is the sum over layers and heads of the last row's attention times the norm of
    the value contribution, |W_O v| (`LastRead`), and all flows sum to 1. AdaToken-3D's abstract
    says that more than 60 % of tokens contribute less than 5 %, and not of what; all three readings
    are given, so that this is ours in its spirit. One forward, shared.

    Attributes:
        part: the 5 %.
        least: the 60 %.

    Values: below_max [layer] (share of tokens whose flow in the layer is below `part` of the
    greatest), flow_by_frame [frame] (sums to 1). share_below_max: below `part` of the
    greatest flow; share_below_total: below `part` of all flow (trivial with many tokens);
    flow_of_least: flow that the `least` part with the smallest flows has together (expected: below
    .05); flow_c20: flow of the top 20 %; effective_tokens: exp of the entropy of the flows, over
    their number.
    """

    source: ClassVar[str] = ""

    part: float = 0.05
    least: float = 0.6

    def reads(self, case: Case) -> list[Capture]:
        return [LastRead("norm")]

    def measure(self, case: Case) -> Values:
        import xarray as xr

        if not 0 < self.part < 1 or not 0 < self.least < 1:
            raise ProbeError(f"{self.kind}: part={self.part}, least={self.least}; 0 to 1 each")
        layout = case.x.layout
        tokens = clip_tokens(layout)
        read = case.of(LastRead("norm")).sel(position=tokens)
        by_layer = read.values.astype(np.float64).sum(1)
        flow = by_layer.sum(0)
        flow = flow / flow.sum() if flow.sum() > 0 else np.full_like(flow, np.nan)
        groups = np.unique(layout.group[tokens], return_index=True)[1]
        count = int(self.least * len(flow) + 1e-9)
        return {
            "below_max": xr.DataArray(
                np.array([below_max(layer, self.part) for layer in by_layer]),
                {"layer": np.arange(len(by_layer))},
                ["layer"],
                attrs={
                    "units": "1",
                    "description": f"share of tokens below {self.part:g} of the layer's greatest",
                },
            ),
            "flow_by_frame": xr.DataArray(
                np.add.reduceat(flow, groups),
                {"frame": frame_labels(layout, tokens[groups][:, None])},
                ["frame"],
                attrs={"units": "1", "description": "part of the flow that the frame brings"},
            ),
            "share_below_max": below_max(flow, self.part),
            "share_below_total": _nan_if(flow, float((flow < self.part).mean())),
            "flow_of_least": float(np.sort(flow)[:count].sum()),
            "flow_c20": float(top_share(flow)),
            "effective_tokens": float(np.exp(_entropy(flow)) / len(flow)),
        }


def below_max(flow: Float[np.ndarray, " token"], part: float) -> float:
    """Share of values below a part of the greatest; NaN where all are 0."""
    return _nan_if(flow, float((flow < part * flow.max()).mean()) if flow.max() > 0 else np.nan)


def _nan_if(flow: np.ndarray, value: float) -> float:
    return value if np.isfinite(flow).all() else float("nan")


def _entropy(flow: np.ndarray) -> float:
    from scipy.special import entr

    return float(entr(flow).sum())
