"""The answer that maps are about, chosen without a run of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from probe.diagnose.case import Case


def answer(case: Case) -> dict[str, Any]:
    """First tokens of the right answer and of the wrong ones, as arguments of a capture: the rival
    is chosen in the run, the best of them, or of all tokens where no answers are given.

    Raises:
        ProbeError: a wrong answer that begins like the right one.
    """
    target = None if case.gold is None else case.first(case.gold)
    wrong = {token for text, token in case.firsts.items() if text != case.gold}
    return {"target": target, "rivals": tuple(sorted(wrong))}


def pair(logits: Tensor, target: int | None, rivals: Sequence[int]) -> tuple[int, int]:
    """Ids of an answer and of its best rival.

    Args:
        logits: of the last prompt position [vocab].
        target: the right answer; None for the model's own first token.
        rivals: the others; none for all other tokens.
    """
    own = int(logits.argmax()) if target is None else target
    others = torch.full_like(logits, -torch.inf)
    index = list(rivals) or slice(None)
    others[index] = logits[index]
    others[own] = -torch.inf
    return own, int(others.argmax())
