"""ClipMargins: what is left of the right answer when the clip is another one, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.counterfactual import seen
from probe.diagnose.pool_rows import append, of_sums, part

if TYPE_CHECKING:
    import pandas as pd

    from probe.diagnose.case import Case

CLIPS = ("blank", "wrong", "shuffled", "reversed", "single")


@dataclass(frozen=True)
class ClipMargins(Diagnosis):
    """Gold margin of the same question with another clip, or none.

    Values: `margin` (untouched), `margin_blind` (no clip; NaN where a family cannot do without),
    and `margin_<clip>` for each of `clips`, all log p(right) - log p(best wrong) in nats by first
    tokens; `right`, `right_<clip>`: 1 where that is above 0.

    The clips are those of `counterfactual.clip_of`: blank is the clip's mean grey, wrong another
    video, single the middle frame alone. An answer whose margin survives the first two, or the
    blind run, does not come from the video; one that survives shuffling needs no order.

    Pooled: the means, and `retained_<clip>`, the paired retention
    (mean margin_<clip> - mean margin_blind) / (mean margin - mean margin_blind), 1 where nothing
    is lost and 0 where the clip is worth no more than none; NaN where the right clip is worth no
    more than none. Against blank where there is no blind run. The ratio of means is ours: a ratio
    for each case has no mean where a case gains nothing from its clip.

    Costs a forward pass a clip, and a short one without any; those that another diagnosis of the
    case has run are not run again.

    Attributes:
        clips: which, of `counterfactual.KINDS`.
        wrong: file of the wrong clip; see `counterfactual.wrong`.

    Raises:
        ProbeError: an unknown clip, or a wrong clip that cannot be read.
    """

    clips: Sequence[str] = CLIPS
    wrong: str = ""

    section: ClassVar[str] = "hallucination"
    needs: ClassVar[tuple[str, ...]] = ("clip", "gold")

    def measure(self, case: Case) -> Values:
        """The margins of one case."""
        alone = all(len(clip) < 2 for clip in case.x.clips)
        runs = {"": case.run, "_blind": case.blind}
        for kind in self.clips:
            still = alone and kind in ("shuffled", "reversed")  # one frame has one order
            runs[f"_{kind}"] = None if still else seen(case, kind, other=self.other(kind))
        nan = float("nan")
        margins = {
            name: nan if run is None else case.gold_margin(run) for name, run in runs.items()
        }
        found = {f"margin{name}": value for name, value in margins.items()}
        for name, value in margins.items():
            found[f"right{name}"] = float(value > 0) if value == value else nan
        return found

    def other(self, kind: str) -> str:
        """The file that a clip takes, where it takes one."""
        return self.wrong if kind == "wrong" else ""

    def pool(self, table: pd.DataFrame) -> pd.DataFrame:
        """Means, and what each clip retains."""
        floor = table["margin_blind"]
        if "margin_blank" in table and not np.isfinite(floor.to_numpy(float)).any():
            floor = table["margin_blank"]
        rows = []
        for kind in self.clips:
            sums = {"kept": table[f"margin_{kind}"] - floor, "earned": table["margin"] - floor}
            rows.append(of_sums(f"retained_{kind}", table, sums, part))
        return append(super().pool(table), rows)
