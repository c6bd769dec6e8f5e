"""StaticFraction: how many visual tokens repeat the frame before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Bool

from probe.ablate.reduction.segment_static import best_cuts
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.input_cosine import InputCosine
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.case import Case

TAU = (0.5, 0.6, 0.65, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class StaticFraction(Diagnosis):
    """Share of the visual tokens that can go as static, by threshold, after HoliTom.

    A place is static from a frame to the next where the cosine of its tokens, as they enter the
    language model, is above tau. HoliTom cuts the clip into segments such that the most tokens
    can be collapsed: of a place that is static all along a segment of n frames, n - 1 go. One
    forward, shared.

    Attributes:
        tau: thresholds. `holitom` has .65 by default, for 10 % of the tokens.

    Values: removable [tau]: HoliTom's share, of all tokens; static [tau]: share of places static
    from a frame to the next, mean over pairs of frames; cosine [pair]: mean over places.
    removable_TAU, static_TAU; cosine_mean. NaN for a clip of one frame.
    """

    source: ClassVar[str] = "HoliTom (arXiv 2505.21334), static tokens"

    tau: Sequence[float] = TAU

    def reads(self, case: Case) -> list[Capture]:
        return [InputCosine()]

    def measure(self, case: Case) -> Values:
        import xarray as xr

        if not self.tau or not all(-1 <= tau <= 1 for tau in self.tau):
            raise ProbeError(f"{self.kind}: tau={list(self.tau)}; cosines, from -1 to 1")
        cosine = case.of(InputCosine()).values
        some = len(cosine) > 0
        removable = [gain(cosine > tau) if some else np.nan for tau in self.tau]
        static = [float((cosine > tau).mean()) if some else np.nan for tau in self.tau]
        values: dict[str, float | xr.DataArray] = {
            name: xr.DataArray(
                found, {"tau": list(self.tau)}, ["tau"], attrs={"units": "1", "description": about}
            )
            for name, found, about in (
                ("removable", removable, "share of the tokens that collapse as static"),
                ("static", static, "share of places that stay from a frame to the next"),
            )
        }
        values["cosine"] = xr.DataArray(
            cosine.mean(-1),
            {"pair": np.arange(len(cosine))},
            ["pair"],
            attrs={"units": "1", "description": "cosine with the next frame, mean over places"},
        )
        for number, tau in enumerate(self.tau):
            values[f"removable_{tau:g}"] = float(removable[number])
            values[f"static_{tau:g}"] = float(static[number])
        values["cosine_mean"] = float(cosine.mean()) if some else float("nan")
        return values


def gain(same: Bool[np.ndarray, "pair place"]) -> float:
    """Share of all tokens that the best segmentation collapses.

    Args:
        same: whether a place stays from a frame to the next.
    """
    frames = len(same) + 1
    edges = [0, *best_cuts(same, frames), frames]
    gone = sum(
        (stop - start - 1) * int(same[start : stop - 1].all(0).sum())
        for start, stop in pairwise(edges)
        if stop - start > 1
    )
    return gone / (frames * same.shape[1])
