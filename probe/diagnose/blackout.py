"""Blackout: in which layers text needs to see the video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.ablate.knockout import windows
from probe.ablate.recipes.masks import visual_blackout
from probe.diagnose.base import Diagnosis, Values
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

    from probe.diagnose.case import Case


@dataclass(frozen=True)
class Blackout(Diagnosis):
    """The gold margin where text sees nothing visual in one block of layers, and what is retained.

    LLaVA-Mini removes vision in four layers of 32 at a time: without the first ones visual ability
    is lost, the deep ones hardly matter. Normalised retention, ours, is
    R = (m_block - m_blind) / (m_full - m_blind) on the gold margin; `m_blind` is that of the
    blackout in all layers (same prompt, same positions), or of the prompt without a clip. One
    clip's R is wild where the video earns little, so that it is NaN there, and over many cases
    the pooled R is the ratio of the means. One forward, then the layers from each block on.

    Attributes:
        width: layers in a block; 0 for an eighth of the model's, at least one.
        blind: "blackout" or "clip".
        least: nats that the video must earn (m_full - m_blind) for one clip's R.

    Values: margin, retention [block] (labelled with the block's first layer). margin_full,
    margin_blind, margin_block_LAYER; retention_first (expected: at most .2), retention_last:
    mean over blocks in the last quarter of layers, the last one at least (expected: at least .9).
    Pooled: the same, retention_block_LAYER, and margins.
    """

    source: ClassVar[str] = "LLaVA-Mini (arXiv 2501.03895), layer-block blackout"

    width: int = 0
    blind: str = "blackout"
    least: float = 0.1

    def measure(self, case: Case) -> Values:
        import xarray as xr

        if self.blind not in ("blackout", "clip"):
            raise ProbeError(f'{self.kind}: blind="{self.blind}"; there are "blackout", "clip"')
        layers = case.model.n_layers
        width = self.width or max(1, layers // 8)
        blocks = list(windows(visual_blackout(), width, layers, "blocks"))
        swept = case.sweep([*blocks, visual_blackout()])["value"].to_numpy(float)
        full, margins, blind = float(swept[0]), swept[1:-1], float(swept[-1])
        if self.blind == "clip":
            if case.blind is None:
                raise ProbeError(f'{self.kind}: {case.model.name} needs a clip; blind="blackout"')
            blind = case.gold_margin(case.blind)
        starts = np.arange(0, layers, width)
        earned = full - blind
        retention = (
            (margins - blind) / earned if earned >= self.least else np.full_like(margins, np.nan)
        )
        dims = {"block": starts}
        values: dict[str, float | xr.DataArray] = {
            "margin": xr.DataArray(
                margins,
                dims,
                ["block"],
                attrs={"units": "nat", "description": "gold margin with the block blacked out"},
            ),
            "retention": xr.DataArray(
                retention,
                dims,
                ["block"],
                attrs={"units": "1", "description": "normalised retention of the gold margin"},
            ),
            "margin_full": full,
            "margin_blind": blind,
            "retention_first": float(retention[0]),
            "retention_last": float(retention[last_quarter(len(starts))].mean()),
        }
        return values | {
            f"margin_block_{n}": float(m) for n, m in zip(starts, margins, strict=True)
        }

    def pool(self, table: pd.DataFrame) -> pd.DataFrame:
        """Means of the margins, and retentions as ratios of means with intervals over videos."""
        from probe.diagnose.pool import means
        from probe.diagnose.pool_rows import append, of_sums, part

        start = "margin_block_"
        names = [str(name) for name in table.columns if str(name).startswith(start)]
        names.sort(key=lambda name: int(name.removeprefix(start)))
        kept = table.dropna(subset=["margin_full", "margin_blind", *names])
        columns = ["sample", "video", "margin_full", "margin_blind", *names]
        found = means(kept.loc[:, columns])
        parts = {name.replace("margin", "retention"): [name] for name in names}
        parts["retention_first"] = names[:1]
        parts["retention_last"] = [names[n] for n in last_quarter(len(names))]
        blind = kept["margin_blind"]
        earned = kept["margin_full"] - blind
        rows = [
            of_sums(
                label, kept, {"kept": kept[several].mean(axis=1) - blind, "earned": earned}, part
            )
            for label, several in parts.items()
        ]
        return append(found, rows)


def last_quarter(blocks: int) -> list[int]:
    """Numbers of the blocks that begin in the last quarter; the last one at least."""
    return [n for n in range(blocks) if n >= 0.75 * blocks] or [blocks - 1]
