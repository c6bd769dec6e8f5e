"""FindsEvidence: how well importance maps find the tokens that show the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from probe.capture.base import Capture
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.importance import metrics
from probe.diagnose.importance.attention import AttentionMap, ReceivedMap
from probe.diagnose.importance.base import EACH, ImportanceMap, single
from probe.diagnose.importance.gradients import GradientMap, RelevanceMap
from probe.diagnose.importance.occlusion import OcclusionMap
from probe.diagnose.importance.prior import CentreMap, RandomMap, UniformMap, UnlikeMap
from probe.diagnose.importance.truth import Known, known
from probe.diagnose.importance.values import ContributionMap, ValueNormMap

if TYPE_CHECKING:
    from probe.diagnose.case import Case

MAPS: tuple[ImportanceMap, ...] = (
    AttentionMap(),
    AttentionMap(layer=EACH),
    ReceivedMap("text"),
    ReceivedMap("question"),
    ReceivedMap("question", layer=EACH),
    ReceivedMap("all"),
    ReceivedMap("all", seen=True),
    ValueNormMap(),
    ValueNormMap(layer=EACH),
    ContributionMap(),
    GradientMap("product"),
    GradientMap("absolute"),
    GradientMap("norm"),
    RelevanceMap(),
    OcclusionMap("margin"),
    OcclusionMap("absolute"),
    OcclusionMap("change"),
    UnlikeMap(),
    CentreMap(),
    RandomMap(),
    UniformMap(),
)
METRICS = (
    "auroc",
    "average_precision",
    "auroc_objects",
    "pointing",
    "frame_recall",
    "precision_within",
)


@dataclass(frozen=True)
class FindsEvidence(Diagnosis):
    """How well each importance map finds the video tokens that show what decides the question.

    Attributes:
        maps: one map or several; those of "each" layer or head count one by one.
        heads: also AUROC and average precision of every single head's attention.
        least: a token shows the evidence where at least this part of its cell does, or where it is
            the one of its frame that shows most; tokens with less are left out.

    Numbers, "METRIC MAP" each:
        auroc: chance that a token with evidence is above one without.
        average_precision: by chance it is `share`.
        auroc_objects: the same as auroc against tokens that show another object alone; the map has
            to know which object is asked for.
        pointing: the top token shows the evidence (pointing game), 1 or 0.
        frame_recall: share of the frames with evidence among as many frames by mean score.
        precision_within: in frames with evidence, its share among as many top tokens.
        share: part of the tokens that show it.
    Arrays: heads_auroc and heads_average_precision [layer, head].

    All is NaN where an item has no evidence, or where every token shows it; definitions are ours.
    All default maps together take one untouched run with a way back, and one of knockouts.
    """

    section: ClassVar[str] = "importance"
    needs: ClassVar[tuple[str, ...]] = ("clip", "gold", "truth")

    maps: ImportanceMap | Sequence[ImportanceMap] = MAPS
    heads: bool = True
    least: float = 0.25

    def reads(self, case: Case) -> Sequence[Capture]:
        return [capture for one in self._maps(case) for capture in one.reads(case)]

    def measure(self, case: Case) -> Values:
        truth = known(case, self.least)
        maps = self._maps(case)
        found = measured(np.stack([one.scores(case) for one in maps]), truth)
        values: dict = {
            f"{metric} {one}": float(number)
            for metric, row in found.items()
            for one, number in zip(maps, row, strict=True)
        }
        values["share"] = float(truth.evidence.mean()) if truth.evidence.any() else float("nan")
        return values | (self._heads(case, truth) if self.heads else {})

    def _maps(self, case: Case) -> tuple[ImportanceMap, ...]:
        given = (self.maps,) if isinstance(self.maps, ImportanceMap) else tuple(self.maps)
        return single(given, case)

    def _heads(self, case: Case, truth: Known) -> dict:
        """[layer, head] of the attention of single heads."""
        import xarray as xr

        scores = np.stack([one.scores(case) for one in AttentionMap(EACH, EACH).each(case)])
        shape = case.model.n_layers, case.model.n_heads
        clear = scores[:, truth.clear], truth.evidence[truth.clear]
        numbers = {"auroc": metrics.auroc, "average_precision": metrics.average_precision}
        coords = {name: np.arange(n) for name, n in zip(("layer", "head"), shape, strict=True)}
        return {
            f"heads_{name}": xr.DataArray(
                metric(*clear).reshape(shape),
                coords,
                ["layer", "head"],
                attrs={"units": "1", "description": f"{name} of the attention of each head"},
            )
            for name, metric in numbers.items()
        }


def measured(
    scores: Float[np.ndarray, "map token"], truth: Known
) -> dict[str, Float[np.ndarray, " map"]]:
    """Every metric of some maps."""
    clear, objects = truth.clear, truth.evidence | truth.rivals
    scored, evidence, group = scores[:, clear], truth.evidence[clear], truth.group[clear]
    return {
        "auroc": metrics.auroc(scored, evidence),
        "average_precision": metrics.average_precision(scored, evidence),
        "auroc_objects": metrics.auroc(scores[:, objects], truth.evidence[objects]),
        "pointing": metrics.pointing(scored, evidence),
        "frame_recall": metrics.frame_recall(scores, truth.evidence, truth.group),
        "precision_within": metrics.precision_within(scored, evidence, group),
    }
