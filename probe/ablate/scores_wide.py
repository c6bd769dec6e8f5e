"""CLS attention over the full width of the vision tower, as DAMRO's released code computes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from probe.ablate.scores_encoder import CLS

if TYPE_CHECKING:
    from probe.engine.vision_call import VisionCall


@dataclass(frozen=True)
class WideCLS(CLS):
    """Attention from CLS to the patch with all heads as one: a softmax over the inner products of
    whole queries and keys, divided by the root of the width (DAMRO, Gong et al. 2024).
    """

    wants: ClassVar[str] = ""

    def patches(self, call: VisionCall) -> Tensor | None:
        if call.pooling or not call.prefix:
            return None
        query, key = call.query[:, :, 0].float(), call.key.float()
        key = key.repeat_interleave(call.heads // key.shape[1], dim=1)
        width = call.heads * query.shape[-1]
        scores = (key @ query[..., None])[..., 0].sum(1) * width**-0.5
        return scores.softmax(-1)
