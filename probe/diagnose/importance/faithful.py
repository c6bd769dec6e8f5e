"""Faithfulness: whether the answer falls as a map's best tokens go, and rises as they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from scipy.integrate import trapezoid
from torch import Tensor

from probe.ablate.reduce import Reduce
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score
from probe.ablate.sites import Layer
from probe.capture.base import Capture
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.importance.attention import AttentionMap, ReceivedMap
from probe.diagnose.importance.base import ImportanceMap, single
from probe.diagnose.importance.gradients import GradientMap, RelevanceMap
from probe.diagnose.importance.knockouts import knocked_out
from probe.diagnose.importance.occlusion import OcclusionMap, blocks, margins_of
from probe.diagnose.importance.prior import CentreMap, RandomMap, UnlikeMap
from probe.diagnose.importance.values import ContributionMap, ValueNormMap
from probe.diagnose.ranks import spearman
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.diagnose.case import Case
    from probe.engine.result import Run

MAPS: tuple[ImportanceMap, ...] = (
    AttentionMap(),
    ReceivedMap("text"),
    ValueNormMap(),
    ContributionMap(),
    GradientMap("product"),
    GradientMap("norm"),
    RelevanceMap(),
    OcclusionMap("margin"),
    OcclusionMap("change"),
    UnlikeMap(),
    CentreMap(),
    RandomMap(),
)
CURVES = ("deletion", "insertion")


@dataclass(frozen=True)
class Named(Score):
    """A score that keeps the positions it names.

    Attributes:
        positions: of the tokens to keep.
    """

    positions: Sequence[int] = ()

    def score(self, c: Candidates) -> Tensor:
        return torch.as_tensor(np.isin(c.position, self.positions)).double()


@dataclass(frozen=True)
class Faithfulness(Diagnosis):
    """Area under the right answer's probability while video tokens go, or come, in a map's order.

    Deletion takes the best tokens away first: a faithful map has a small area. Insertion begins
    without video tokens and adds the best first: a large area. Both run over the fraction of the
    tokens, 0 to 1, by the trapezoidal rule; of tied tokens the earlier is the better.

    Attributes:
        maps: one or several; those of "each" layer or head count one by one.
        steps: fractions of the tokens between 0 and 1.
        by: "drop": tokens are absent from the input of the language model (where arXiv 2506.01097
            reduces by relevance), the others keep their position ids. "cut": they are there, but no
            text sees them in any layer (attention knockout); much faster.

    Numbers, "NAME MAP" each: deletion and insertion (area of the right answer's probability among
    the answers, or among all tokens where no answers are given), deletion_margin and
    insertion_margin (area of logit(right) - logit(best wrong)), agreement (Spearman correlation of
    the means over `OcclusionMap`'s blocks with the absolute fall of the margin without the block)
    and agreement_signed (with the fall itself). Array: curves [map, curve, fraction], probability.

    Each map takes two runs a step ("drop"), or the rows of text twice a step ("cut").
    """

    section: ClassVar[str] = "importance"
    needs: ClassVar[tuple[str, ...]] = ("clip", "gold")

    maps: ImportanceMap | Sequence[ImportanceMap] = MAPS
    steps: Sequence[float] = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
    by: str = "drop"

    def reads(self, case: Case) -> Sequence[Capture]:
        return [capture for one in self._maps(case) for capture in one.reads(case)]

    def measure(self, case: Case) -> Values:
        import xarray as xr

        if self.by not in ("drop", "cut"):
            raise ProbeError(f'{self.kind}: by="{self.by}"; there are drop and cut')
        if not self.steps or list(self.steps) != sorted({s for s in self.steps if 0 < s < 1}):
            raise ProbeError(f"{self.kind}: steps are fractions between 0 and 1 that increase")
        maps, tokens = self._maps(case), case.video_tokens
        scores = [one.scores(case) for one in maps]
        counts = [max(1, round(step * len(tokens))) for step in self.steps]
        gone: list[np.ndarray] = [tokens]
        for given in scores:
            order = tokens[np.argsort(-given, kind="stable")]
            gone.extend(np.sort(order[:count]) for count in counts)
            gone.extend(np.sort(order[count:]) for count in counts)
        runs = self._values(case, gone)
        curves = _curves(runs, len(maps), len(counts))
        fraction = np.array([0, *(count / len(tokens) for count in counts), 1])
        areas = trapezoid(curves, fraction, axis=2)
        values: dict = {}
        for number, one in enumerate(maps):
            for curve, name in enumerate(CURVES):
                values[f"{name} {one}"] = float(areas[number, curve, 0])
                values[f"{name}_margin {one}"] = float(areas[number, curve, 1])
        values |= _agreements(case, maps, scores)
        coords = {
            "map": [str(one) for one in maps],
            "curve": list(CURVES),
            "fraction": [0.0, *self.steps, 1.0],
        }
        attrs = {"units": "1", "description": "probability of the right answer along each curve"}
        values["curves"] = xr.DataArray(curves[..., 0], coords, list(coords), attrs=attrs)
        return values

    def _maps(self, case: Case) -> tuple[ImportanceMap, ...]:
        given = (self.maps,) if isinstance(self.maps, ImportanceMap) else tuple(self.maps)
        return single(given, case)

    def _values(self, case: Case, gone: list[np.ndarray]) -> Float[np.ndarray, "run number"]:
        """Probability and margin of the right answer, untouched and without each set of tokens."""
        if self.by == "cut":
            logits = knocked_out(case.model, case.x, gone)
            return np.array([_numbers(case, row) for row in logits])
        tokens = case.video_tokens
        lists = []
        for positions in gone:
            kept = np.setdiff1d(tokens, positions)
            score = Named(tuple(kept.tolist()))
            lists.append(Reduce(at=Layer(0), score=score, keep_tokens=len(kept)))

        def read(run: Run) -> dict[str, float]:
            probability, margin = _numbers(case, run.logits[0])
            return {"probability": probability, "margin": margin}

        return case.sweep(lists, read)[["probability", "margin"]].to_numpy(float)


def _curves(
    runs: Float[np.ndarray, "run number"], maps: int, steps: int
) -> Float[np.ndarray, "map curve fraction number"]:
    """Both curves of every map with their ends: untouched, and without any video token.

    Args:
        runs: untouched, without video tokens, then every step of each map's curves.
        maps, steps: how many.
    """
    full, none = runs[:2]
    curves = np.empty((maps, len(CURVES), steps + 2, runs.shape[1]))
    curves[:, :, 1:-1] = runs[2:].reshape(maps, len(CURVES), steps, -1)
    curves[:, 0, 0] = curves[:, 1, -1] = full
    curves[:, 0, -1] = curves[:, 1, 0] = none
    return curves


def _numbers(case: Case, row: Float[np.ndarray, " vocab"]) -> tuple[float, float]:
    """Probability of the right answer among the answers, and its margin."""
    logits = torch.from_numpy(np.asarray(row))
    assert case.gold is not None
    right = case.first(case.gold)
    among = [right, *(case.first(text) for text in case.answers if text != case.gold)]
    shown = logits.double()[among] if case.answers else logits.double()
    probability = shown.softmax(-1)[0 if case.answers else right]
    return float(probability), float(margins_of(case, [logits])[0])


def _agreements(
    case: Case, maps: Sequence[ImportanceMap], scores: Sequence[np.ndarray]
) -> dict[str, float]:
    """Spearman correlations with occlusion, over blocks."""
    occlusion = OcclusionMap("margin")
    number = blocks(case.x.layout, occlusion.cells, occlusion.frames)
    size = np.bincount(number)
    fall = np.bincount(number, occlusion.scores(case)) / size
    values = {}
    for one, given in zip(maps, scores, strict=True):
        mean = np.bincount(number, given) / size
        values[f"agreement {one}"] = float(spearman(mean, np.abs(fall)))
        values[f"agreement_signed {one}"] = float(spearman(mean, fall))
    return values
