"""RankStability: do layers agree on which visual tokens matter?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.capture import AttentionReceived
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.cells import by_frame, clip_tokens
from probe.diagnose.ranks import partial_tau, tau_b

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.case import Case


@dataclass(frozen=True)
class RankStability(Diagnosis):
    """Kendall's tau-b between layers of the visual tokens' rank by attention received from text.

    G-Search builds on ranks that are alike (tau at least .7) in all layers but the first. Which
    queries it averages is not known to us; here it is the mean over heads of one selection. A
    tau over all tokens can be carried by frames alone (text likes some frames), or by position
    alone (early tokens, or late ones). Therefore, ours: tau within frames (mean over frames),
    tau between the shares of the frames, tau of each layer with the token's index (the null), and
    Kendall's partial tau with the index held fixed. One forward, shared.

    Attributes:
        queries: the text whose attention ranks the tokens: "last" or any selection.

    Values: tau, tau_within_frames, tau_between_frames [layer, other_layer]; tau_with_index
    [layer]. tau_median: over pairs without the first layer (the paper: at least .7);
    first_layer_gap: mean of these pairs minus mean of the first layer's; within_frames_median,
    between_frames_median; index_median: median |tau| with the index, over layers but the first;
    partial_median; above_index: tau_median minus index_median (expected: above 0).
    NaN where a layer's values are all equal, between frames with less than three frames.
    """

    source: ClassVar[str] = "G-Search (rank stability)"

    queries: str = "last"

    def reads(self, case: Case) -> list[Capture]:
        return [AttentionReceived(queries=[self.queries])]

    def measure(self, case: Case) -> Values:
        import xarray as xr

        layout = case.x.layout
        received = case.of(AttentionReceived(queries=[self.queries]))
        each = received.isel(query_group=0).mean("head").values.astype(np.float64)
        tokens, frames = clip_tokens(layout), by_frame(layout, self.kind)
        tau = tau_b(each[:, tokens])
        within = np.stack([tau_b(each[:, frame]) for frame in frames])
        between = tau_b(each[:, frames].sum(-1)) if len(frames) > 2 else np.full_like(tau, np.nan)
        ranked = tau_b(np.concatenate([each[:, tokens], [np.arange(len(tokens))]]))
        index = ranked[-1, :-1]
        late = float(_mean(tau[1:, 1:])) if len(tau) > 2 else float("nan")
        median = _median(tau[1:, 1:])
        null = float(np.median(np.abs(index[1:]))) if len(tau) > 1 else float("nan")
        layers = np.arange(len(tau))
        dims = {"layer": layers, "other_layer": layers}

        def matrix(values: np.ndarray, what: str) -> xr.DataArray:
            about = f"Kendall's tau-b between layers, {what}"
            return xr.DataArray(
                values, dims, list(dims), attrs={"units": "1", "description": about}
            )

        return {
            "tau": matrix(tau, "all tokens of the clip"),
            "tau_within_frames": matrix(_over_frames(within), "within a frame, mean over frames"),
            "tau_between_frames": matrix(between, "of the shares of the frames"),
            "tau_with_index": xr.DataArray(
                index,
                {"layer": layers},
                ["layer"],
                attrs={"units": "1", "description": "Kendall's tau-b with the token's index"},
            ),
            "tau_median": median,
            "first_layer_gap": late - (float(tau[0, 1:].mean()) if len(tau) > 1 else float("nan")),
            "within_frames_median": _median(_over_frames(within)[1:, 1:]),
            "between_frames_median": _median(between[1:, 1:]),
            "index_median": null,
            "partial_median": _median(partial_tau(tau, index)[1:, 1:]),
            "above_index": median - null,
        }


def _pairs(matrix: np.ndarray) -> np.ndarray:
    return matrix[np.triu_indices(len(matrix), 1)]


def _median(matrix: np.ndarray) -> float:
    pairs = _pairs(matrix)
    return float(np.median(pairs)) if len(pairs) else float("nan")


def _mean(matrix: np.ndarray) -> float:
    return float(_pairs(matrix).mean())


def _over_frames(each: np.ndarray) -> np.ndarray:
    """Mean over frames in which both layers have ranks; NaN where none has."""
    there = np.isfinite(each)
    with np.errstate(invalid="ignore"):
        return np.where(there, each, 0).sum(0) / there.sum(0)
