"""Orders of visual tokens: which to keep first, by a map or at random."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from probe.diagnose.importance.base import ImportanceMap
from probe.diagnose.importance.values import ContributionMap

if TYPE_CHECKING:
    from probe.diagnose.case import Case


def rng(case: Case, *more: int) -> np.random.Generator:
    """Random numbers of a case: of its seed and its name, so that those of two cases differ."""
    return np.random.default_rng([case.seed, zlib.crc32(case.id.encode()), *more])


def values(case: Case, by: ImportanceMap, own: bool = True) -> Float[np.ndarray, " token"]:
    """One number a video token, higher for those to keep first.

    Args:
        case: the case.
        by: a map.
        own: for the model's own answer. A contribution to the right answer's margin counts against
            the model's own one where that is wrong, so its sign turns.
    """
    found = by.scores(case)
    turn = own and isinstance(by, ContributionMap) and case.gold and not case.right(case.run)
    return -found if turn else found


def order(values: Float[np.ndarray, " token"]) -> Int[np.ndarray, " token"]:
    """Numbers of the tokens, the highest value first; of equal ones the earlier."""
    return np.argsort(-values, kind="stable")
