"""AttentionTypes: how much of the attention goes to text and how much to vision, by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.diagnose.attention_by_type import AttentionByType
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.ranks import spearman

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.case import Case

LATER = {"nothing": "", "first": "_without_first", "sinks": "_without_sinks"}


@dataclass(frozen=True)
class AttentionTypes(Diagnosis):
    """Attention by type of token and layer, with and without positions that only drain it.

    LLaVA-Mini (section 3, appendix A): early layers split their attention between instruction and
    vision, deep layers send more than 80 % of it to the instruction; the entropy inside vision is
    high early and low later. The first positions, and sinks elsewhere, take attention that means
    nothing and count as instruction (or vision), so that all is given without the first positions
    and without sinks as well; shares then are of what is left. The paper reads the rows of the
    response; of these the first alone is in a prompt. Sinks by their norm are ours (ten times the
    median; massive activations make attention sinks, arXiv 2402.17762). One forward, shared.

    Attributes:
        first: positions at the start of the sequence that are left out.
        sink: a position is a sink in a layer that it enters with more than this many times the
            median norm.

    Values: attention_by_type [layer, left_out, quantity, target, source] as
    `AttentionByType`, vision_share [left_out, layer] of the response. For each of "",
    "_without_first" and "_without_sinks": second_half_text_share (expected: at least .8) and
    vision_share_spearman over layers (expected: at most -.6), both of the response, and
    vision_entropy_change: entropy inside vision, second half of the layers minus first (expected:
    below 0), in nats. sinks: positions that are sinks, mean over layers.
    """

    source: ClassVar[str] = "LLaVA-Mini (arXiv 2501.03895), section 3"

    first: int = 4
    sink: float = 10.0

    def reads(self, case: Case) -> list[Capture]:
        return [self._capture]

    @property
    def _capture(self) -> AttentionByType:
        return AttentionByType(self.first, self.sink)

    def measure(self, case: Case) -> Values:
        import xarray as xr

        found = case.of(self._capture)
        response = found.sel(target="response")
        mass = response.sel(quantity="mass")
        share = mass.sel(source="vision") / mass.sum("source")
        share = share.transpose("left_out", "layer").drop_vars(["target", "quantity", "source"])
        entropy = response.sel(quantity="entropy", source="vision")
        half = len(found.layer) // 2
        values: dict[str, float | xr.DataArray] = {
            "sinks": float(found.sinks.mean()),
            "attention_by_type": found,
            "vision_share": share.assign_attrs(
                units="1", description="part of the response's attention that goes to vision"
            ),
        }
        for left_out, suffix in LATER.items():
            line = share.sel(left_out=left_out).values
            inside = entropy.sel(left_out=left_out).values
            values[f"second_half_text_share{suffix}"] = float(1 - line[half:].mean())
            values[f"vision_share_spearman{suffix}"] = float(spearman(line, np.arange(len(line))))
            change = inside[half:].mean() - inside[:half].mean() if half else np.nan
            values[f"vision_entropy_change{suffix}"] = float(change)
        return values
