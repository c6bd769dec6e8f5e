"""NormTail: do a few visual tokens dominate by their norm, and does pooling change it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from probe.capture import TokenNorms
from probe.capture.vision_tail import TAIL, norm_tail
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.cells import clip_tokens
from probe.diagnose.pooled_tail import PooledTail
from probe.diagnose.ranks import spearman

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.case import Case

EDGES = np.arange(-4, 4.01, 0.25)
"""Bins of log2(norm / the layer's median)."""


@dataclass(frozen=True)
class NormTail(Diagnosis):
    """The norms of the visual tokens as they enter each layer, and how heavy their tail is.

    What enters layer 0 is what the projector gave, after the family's own pooling. PLLaVA's
    figures 2 to 5 show a norm histogram that widens and becomes two-peaked where many frames are
    fine-tuned on without pooling. Training cannot be tested on one checkpoint; that the tail
    exists, and that it shrinks when what enters layer 0 is average-pooled (as PLLaVA does, by an
    adaptive pool of each frame), can. One forward, shared.

    Attributes:
        windows: cells a side that one pooled token stands for; 1 is no pooling.

    Values: norm_tail [layer, tail], norm_histogram [layer, log2_norm] (share of tokens by
    log2(norm / median), ends included), pooled_tail [window, tail] of layer 0; p99_over_p50,
    top_1_percent_share and modes at layer 0, p99_over_p50_last at the last layer,
    pooling_trend: Spearman of p99/p50 and the window (expected: -1).
    """

    source: ClassVar[str] = "PLLaVA (arXiv 2404.16994), norm histograms"

    windows: Sequence[int] = (1, 2, 3, 4)

    def reads(self, case: Case) -> list[Capture]:
        return [TokenNorms(), PooledTail(self.windows)]

    def measure(self, case: Case) -> Values:
        import xarray as xr

        tokens = clip_tokens(case.x.layout)
        norms = case.of(TokenNorms()).sel(vector="residual").values[:, tokens]
        tails = np.stack([norm_tail(layer) for layer in norms])
        pooled = case.of(PooledTail(self.windows))
        ratio = pooled.sel(tail="p99/p50").values
        there = np.isfinite(ratio)
        trend = float(spearman(ratio[there], np.array(self.windows)[there]))
        layers = np.arange(len(norms))
        names = {"units": "1", "description": "; ".join(TAIL.values())}
        return {
            "norm_tail": xr.DataArray(
                tails, {"layer": layers, "tail": list(TAIL)}, ["layer", "tail"], attrs=names
            ),
            "norm_histogram": xr.DataArray(
                np.stack([histogram(layer) for layer in norms]),
                {"layer": layers, "log2_norm": EDGES[:-1] + np.diff(EDGES) / 2},
                ["layer", "log2_norm"],
                attrs={
                    "units": "1",
                    "description": "share of visual tokens by log2(norm / the layer's median)",
                },
            ),
            "pooled_tail": pooled,
            "p99_over_p50": float(tails[0, 0]),
            "top_1_percent_share": float(tails[0, 1]),
            "modes": float(tails[0, 2]),
            "p99_over_p50_last": float(tails[-1, 0]),
            "pooling_trend": trend,
        }


def histogram(norms: Float[np.ndarray, " token"]) -> Float[np.ndarray, " log2_norm"]:
    """Share of tokens in each bin of log2(norm / median); what lies beyond is in the end bins."""
    away = np.log2(np.maximum(norms, 1e-30) / np.median(norms))
    counts = np.histogram(np.clip(away, EDGES[0], EDGES[-1]), EDGES)[0]
    return counts / len(norms)
