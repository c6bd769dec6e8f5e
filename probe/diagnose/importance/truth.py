"""Which video tokens of a case are known to matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from probe.diagnose.importance.base import ImportanceMap
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.diagnose.case import Case


@dataclass(frozen=True, eq=False)
class Known:
    """The truth about the video tokens of a case, in the order of `case.video_tokens`.

    Attributes:
        evidence: shows what decides the question.
        clear: shows it or nothing of it; tokens that it barely touches are neither.
        rivals: shows another object than the evidence, and nothing of the evidence.
        share: part of its cell that shows the evidence.
        group: temporal group.
    """

    evidence: Bool[np.ndarray, " token"]
    clear: Bool[np.ndarray, " token"]
    rivals: Bool[np.ndarray, " token"]
    share: Float[np.ndarray, " token"]
    group: Int[np.ndarray, " token"]


def known(case: Case, least: float = 0.25) -> Known:
    """What a case's truth says of its tokens: that of a testbed item by the scene graph, or an
    array of bool [position] that names the tokens that show the evidence.

    Raises:
        ProbeError: a truth of another kind.
    """
    from probe.testbed.evidence import shown
    from probe.testbed.item import Item

    tokens = case.video_tokens
    group = case.x.layout.group[tokens].astype(np.int64)
    if isinstance(case.truth, Item):
        item = shown(case.x.layout, case.truth, least)
        evidence, touched = item.evidence[tokens], item.touched[tokens]
        rivals = item.things[tokens] & ~touched
        return Known(evidence, evidence | ~touched, rivals, item.share[tokens], group)
    marked = np.asarray(case.truth)
    if marked.dtype != bool or marked.shape != (len(case.x.layout),):
        raise ProbeError(
            "importance: truth is neither a testbed item nor an array of bool with one value "
            f"for each of the {len(case.x.layout)} positions"
        )
    every = np.ones(len(tokens), bool)
    return Known(marked[tokens], every, ~every, marked[tokens].astype(float), group)


@dataclass(frozen=True)
class EvidenceMap(ImportanceMap):
    """The truth as a map: the part of each token's cell that shows the evidence. It bounds what
    other maps can reach, and says how much of what decides the answer the evidence is.
    """

    needs: ClassVar[tuple[str, ...]] = ("clip", "truth")

    def scores(self, case: Case) -> Float[np.ndarray, " token"]:
        return known(case).share
