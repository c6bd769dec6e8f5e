"""TemporalSensitivity: how much of the right answer hangs on the order of the frames."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.counterfactual import seen
from probe.diagnose.pool_rows import append, ranking, ratio
from probe.errors import ProbeError
from probe.video.perturb import chunks

if TYPE_CHECKING:
    import pandas as pd

    from probe.diagnose.case import Case

KINDS = {"reverse": "reversed", "shuffle": "shuffled", "drop": "dropped"}
LADDER = tuple(f"{how}@{m}" for how in ("drop", "reverse", "shuffle") for m in (2, 4, 8, 16))
TIMED = ("order", "direction")
TIMELESS = ("color", "shape", "count", "existence")


@dataclass(frozen=True)
class TemporalSensitivity(Diagnosis):
    """Fall of the gold margin when frames are reordered: high where the answer needs their order.

    Values, in nats of log p(right) - log p(best wrong), positive where the change hurts:
    `reverse` and `shuffle` (every frame alone), one for each rung, such as `reverse_2` (the clip
    in two halves, swapped), `sensitivity` (mean of those that reorder, drops left out), and `gap`
    (untouched minus blind, or minus blank where a family cannot do without a clip). Of the
    answers' probabilities: `moved_reverse`, `moved_shuffle`, total variation distance 0 to 1, NaN
    without answers. `needs_order` is the truth where it is known: 1 for testbed items about order
    and direction whose evidence is visible, 0 for those about colour, shape, count and existence;
    `stays` is 1 where the answer is that nothing moves, which holds in every order.

    Pooled: means; `S_<rung>` and `S`, mean fall over mean gap (all rungs, drops too): a model with
    S near 0 answers without order; and where truth is known the AUROC of each score for
    `needs_order`, with `_moving` without the items whose answer is that nothing moves.

    The drop, reverse and shuffle of a magnitude are TEMPLE's (Li et al. 2025, arXiv 2503.16929),
    whose magnitudes are 2 to 16: `ladder="full"`. S is ours.

    Costs a forward pass for each of reverse, shuffle and the rungs, and a short one without a
    clip; those that another diagnosis of the case has run are not run again.

    Attributes:
        ladder: rungs besides reverse and shuffle, such as "drop@4"; "full" for `LADDER`.
        draws: shuffles that are averaged.

    Raises:
        ProbeError: an unknown rung, no draw, or a clip of one frame.
    """

    ladder: Sequence[str] = ("reverse@2",)
    draws: int = 1

    section: ClassVar[str] = "time"
    source: ClassVar[str] = "TEMPLE (arXiv 2503.16929), its changes"
    needs: ClassVar[tuple[str, ...]] = ("clip",)

    def rungs(self) -> dict[str, tuple[str, int | None]]:
        """Name of each rung, what it does and at which magnitude.

        Raises:
            ProbeError: an unknown rung.
        """
        found: dict[str, tuple[str, int | None]] = {r: (r, None) for r in ("reverse", "shuffle")}
        given = LADDER if self.ladder == "full" else self.ladder
        for rung in [given] if isinstance(given, str) else given:
            match = re.fullmatch(r"(drop|reverse|shuffle)@([1-9]\d*)", rung)
            if match is None:
                raise ProbeError(
                    f'temporal_sensitivity: no rung "{rung}"; write drop, reverse or shuffle, @ '
                    'and a magnitude, for example "shuffle@4"'
                )
            found[rung.replace("@", "_")] = (match[1], int(match[2]))
        return found

    def measure(self, case: Case) -> Values:
        """The falls of one case."""
        if self.draws < 1:
            raise ProbeError(f"temporal_sensitivity: draws={self.draws}; average at least 1")
        if all(len(clip) < 2 for clip in case.x.clips):
            raise ProbeError("temporal_sensitivity: a clip of one frame has one order")
        margin = case.gold_margin(case.run)
        falls = {
            name: margin - float(np.mean([case.gold_margin(r) for r in self.runs(case, *rung)]))
            for name, rung in self.rungs().items()
        }
        found = dict(falls)
        found["sensitivity"] = float(np.mean([v for n, v in falls.items() if "drop" not in n]))
        found["gap"] = margin - case.gold_margin(case.blind or seen(case, "blank"))
        for name in ("reverse", "shuffle"):
            runs = self.runs(case, name, None)
            found[f"moved_{name}"] = float(np.mean([moved(case, run) for run in runs]))
        return {**found, **truth_of(case)}

    def runs(self, case: Case, how: str, magnitude: int | None) -> list[Any]:
        """The runs of one rung: several where shuffles are averaged."""
        alone = all(len(chunks(len(c), magnitude)) == len(c) for c in case.x.clips)
        size = None if alone and how != "drop" else magnitude
        draws = range(self.draws if how == "shuffle" else 1)
        return [seen(case, KINDS[how], size, draw) for draw in draws]

    def pool(self, table: pd.DataFrame) -> pd.DataFrame:
        """Means, S of each rung and of all, and AUROCs where truth is known."""
        names = list(self.rungs())
        rows = [ratio(f"S_{name}", table, table[name], table["gap"]) for name in names]
        rows.append(ratio("S", table, table[names].mean(axis=1), table["gap"]))
        scores = ["sensitivity", *names, "moved_reverse", "moved_shuffle"]
        truth = table["needs_order"].to_numpy(float)
        if np.isfinite(truth).any():
            moving = np.where(table["stays"] == 1, np.nan, truth)
            rows += [ranking(f"auroc_{name}", table, table[name], truth) for name in scores]
            for name in ("sensitivity", "reverse", "shuffle"):
                rows.append(ranking(f"auroc_{name}_moving", table, table[name], moving))
        return append(super().pool(table), rows)


def moved(case: Case, run: Any) -> float:
    """Total variation distance between the answers' probabilities of a run and of the untouched
    one, 0 to 1; NaN without answers.
    """
    if not case.answers:
        return float("nan")
    return float(abs(case.probabilities(run) - case.probabilities(case.run)).sum() / 2)


def truth_of(case: Case) -> dict[str, float]:
    """`needs_order` and `stays` of a testbed item with visible evidence; NaN otherwise."""
    question: Any = getattr(case.truth, "question", None)
    kind = getattr(question, "type", None)
    if kind not in TIMED + TIMELESS or not question.visible:
        return {"needs_order": float("nan"), "stays": float("nan")}
    stays = kind == "direction" and question.answer == "stays"
    return {"needs_order": float(kind in TIMED), "stays": float(stays)}
