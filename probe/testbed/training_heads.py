"""Throwaway heads of stage 1: what a token says of its cell in each of its frames."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import nn

from probe.testbed.scene import COLORS, MOTIONS, SHAPES


class Heads(nn.Module):
    """Linear read-outs of tokens that span one frame or several."""

    def __init__(self, width: int, span: int) -> None:
        super().__init__()
        self.span = span
        self.shape = nn.Linear(width, span * (len(SHAPES) + 1))
        self.color = nn.Linear(width, span * (len(COLORS) + 2))
        self.way = nn.Linear(width, span * 2)
        if span > 1:
            self.motion = nn.Linear(width, len(MOTIONS))
            self.move = nn.Linear(width, 2)

    def forward(self, tokens: Any, labels: dict[str, Any]) -> tuple[dict[str, Any], dict]:
        """Losses by name, and shares of cells with an object that are right.

        Args:
            tokens: [group, 36, width].
            labels: from `group_targets`.
        """
        losses, right = {}, {}
        inside = labels["inside"]
        for name in ("shape", "color"):
            says = getattr(self, name)(tokens).unflatten(-1, (self.span, -1))
            losses[name] = F.cross_entropy(says.flatten(0, 2), labels[name].flatten())
            right[name] = _share(says, labels[name], inside)
        says = self.way(tokens).unflatten(-1, (self.span, 2))
        losses["way"] = _miss(says, labels["way"], inside)
        if self.span > 1:
            says = self.motion(tokens)
            losses["motion"] = F.cross_entropy(says.flatten(0, 1), labels["motion"].flatten())
            right["motion"] = _share(says, labels["motion"], labels["motion"] >= 0)
            losses["move"] = _miss(self.move(tokens), labels["move"], labels["moves"])
        return losses, right


def _miss(says: Any, label: Any, where: Any) -> Any:
    miss = F.smooth_l1_loss(says, label, reduction="none").mean(-1)
    return (miss * where).sum() / where.sum().clamp(min=1)


def _share(logits: Any, label: Any, where: Any) -> float:
    return (logits.argmax(-1) == label)[where].float().mean().item()
