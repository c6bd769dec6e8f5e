"""HeadRatio: which heads let text look at the video, and how many matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.ablate.recipes.heads import FIRST
from probe.capture import AttentionMass
from probe.diagnose.base import Diagnosis, Values

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.case import Case


@dataclass(frozen=True)
class HeadRatio(Diagnosis):
    """mass(text -> video) / mass(text -> text and system) of every head, after YOPO.

    Queries are the text behind the first visual token. YOPO calls a head inactive where the ratio
    is below theta in a majority of 100 samples, and prunes it, outside the first two layers;
    `visual_head_pruning` does that, and this counts heads in one sample. Published theta: .035,
    .077 and .2 (LLaVA-1.5-13B; 30, 20 and 10 of 40 heads left), .07 (Qwen2-VL), .11 (InternVL2).
    One forward, shared.

    Attributes:
        theta: thresholds.
        keys: what counts as the video.

    Values: head_ratio [layer, head]; active_heads [theta, layer]: heads from theta on, mean
    over layers from the third on as active_heads_THETA; ratio_median (over heads of these
    layers); ratio_top_share: part of the heads' summed ratio that the best quarter has.
    """

    source: ClassVar[str] = "YOPO (arXiv 2410.06169), visual head pruning"

    theta: Sequence[float] = (0.035, 0.07, 0.077, 0.11, 0.2)
    keys: str = "video"

    def reads(self, case: Case) -> list[Capture]:
        return [self._mass(case)]

    def _mass(self, case: Case) -> AttentionMass:
        first = int(case.x.layout.select(self.keys)[0])
        return AttentionMass(queries=[f"text - tokens 0-{first}"], keys=[self.keys, "text"])

    def measure(self, case: Case) -> Values:
        import xarray as xr

        mass = case.of(self._mass(case)).isel(query_group=0).values.astype(np.float64)
        with np.errstate(divide="ignore"):
            ratio = mass[..., 0] / mass[..., 1]
        layers, heads = (np.arange(size) for size in ratio.shape)
        active = np.stack([(ratio >= theta).sum(1) for theta in self.theta])
        rest = ratio[min(FIRST, len(ratio) - 1) :]
        best = np.sort(rest, None)[::-1]
        quarter = max(1, round(len(best) / 4))
        values: dict[str, float | xr.DataArray] = {
            "head_ratio": xr.DataArray(
                ratio,
                {"layer": layers, "head": heads},
                ["layer", "head"],
                attrs={"units": "1", "description": "text's attention to video over that to text"},
            ),
            "active_heads": xr.DataArray(
                active,
                {"theta": list(self.theta), "layer": layers},
                ["theta", "layer"],
                attrs={"units": "heads", "description": "heads whose ratio is theta or more"},
            ),
            "ratio_median": float(np.median(rest)),
            "ratio_top_share": float(best[:quarter].sum() / best.sum()),
        }
        for number, theta in enumerate(self.theta):
            later = active[number, min(FIRST, len(ratio) - 1) :]
            values[f"active_heads_{theta:g}"] = float(later.mean())
        return values
