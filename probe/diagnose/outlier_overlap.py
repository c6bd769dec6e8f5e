"""OutlierOverlap: does the answer look at the patches that stand out in the vision tower?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.ablate.reduce import Layer, Reduce
from probe.ablate.reduction.parts import Score
from probe.ablate.scores_encoder import CLS, EncoderReceived, has_cls
from probe.capture.rows import AttentionRows
from probe.diagnose.base import Diagnosis, Values
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.case import Case

ENCODERS = ("auto", "cls", "received")
LAST = AttentionRows(queries="last")


@dataclass(frozen=True)
class OutlierOverlap(Diagnosis):
    """`outlier_overlap@k`: |top k by the vision tower and top k by the answer's attention| / k.

    The tower's score is the attention from CLS to a patch in the layer before the last or, where
    the tower has no CLS token, the attention that the patch receives in its last layer: another
    quantity, said by `has_cls`. Patches that the model puts together to one token count as their
    mean. The answer's attention is that of the position that predicts its first token, mean over
    heads. Both are over the tokens of the clip, all frames together.

    Values: `overlap@k` for each k, mean over `layers`, and `chance@k` = k / n with n tokens of the
    clip; `above@k`, their difference; `right`, the answer is right, NaN without a right one.
    Arrays: `overlap_by_layer` [layer, k].

    Ours: DAMRO (Gong et al. 2024, arXiv 2410.04514) finds hallucination where the language model
    looks at the encoder's outliers, but what its analysis counts could not be checked. By the
    hypothesis it is larger where the answer is wrong. Costs a forward pass, and the layers' rows
    of the untouched run.

    Attributes:
        k: how many tokens are compared.
        layers: layers of the language model, from and to as a share of its depth.
        encoder: "cls", "received", or "auto" for what the tower has.

    Raises:
        ProbeError: a k of no use, another encoder, or a family whose tower cannot be read.
    """

    k: Sequence[int] | int = (10,)
    layers: tuple[float, float] = (0.25, 0.75)
    encoder: str = "auto"

    section: ClassVar[str] = "hallucination"

    def reads(self, case: Case) -> Sequence[Capture]:
        """The answer's attention."""
        return [LAST]

    def measure(self, case: Case) -> Values:
        """The overlap of one case."""
        import xarray as xr

        video = case.video_tokens
        sizes = [self.k] if isinstance(self.k, int) else list(self.k)
        if not sizes or any(not 0 < k <= len(video) for k in sizes):
            raise ProbeError(f"outlier_overlap: k is from 1 to the clip's {len(video)} tokens")
        score, by_cls = self.score(case)
        rows = case.of(LAST).mean("head").isel(query=0).values[:, video]
        tops = {k: standing_out(case, score, k) for k in sizes}
        found = np.array([[len(tops[k] & attended(row, k)) / k for k in sizes] for row in rows])
        first, last = (round(part * len(rows)) for part in self.layers)
        used = found[first : max(last, first + 1)]
        values: dict = {"has_cls": float(by_cls)}
        for number, k in enumerate(sizes):
            mean, chance = float(used[:, number].mean()), k / len(video)
            values |= {f"overlap@{k}": mean, f"chance@{k}": chance, f"above@{k}": mean - chance}
        values["right"] = float(case.right(case.run)) if case.gold is not None else float("nan")
        values["overlap_by_layer"] = xr.DataArray(
            found,
            dims=("layer", "k"),
            coords={"layer": np.arange(len(rows)), "k": sizes},
            attrs={"units": "1", "description": "share of the top k that both have"},
        )
        return values

    def score(self, case: Case) -> tuple[Score, bool]:
        """The tower's score, and whether it is of CLS."""
        if self.encoder not in ENCODERS:
            raise ProbeError(
                f'outlier_overlap: encoder="{self.encoder}"; there are {", ".join(ENCODERS)}'
            )
        from probe.engine.vision_parts import vision_tower

        found = self.encoder == "auto" and has_cls(vision_tower(case.model))
        with_cls = self.encoder == "cls" or found
        return (CLS(), True) if with_cls else (EncoderReceived(), False)


def standing_out(case: Case, score: Score, k: int) -> set[int]:
    """Places, among the clip's tokens, of the k that a reduction by the score would keep."""
    run = case.model.run(case.x, ablate=Reduce(at=Layer(0), score=score, keep_tokens=k))
    return set(np.flatnonzero(run.kept.values[-1][case.video_tokens]).tolist())


def attended(row: np.ndarray, k: int) -> set[int]:
    """Places of the k largest; of equal ones the first count."""
    return set(np.argsort(-row, kind="stable")[:k].tolist())
