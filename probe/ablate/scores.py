"""Scores: which visual tokens matter most; higher means keep. Ties go to the earlier token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from probe.spec import Spec

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session


@dataclass(frozen=True)
class Score(Spec):
    """Base: one number per candidate position, computed during the prefill."""

    needs_attention: ClassVar[bool] = False

    def read(self, session: Session, call: AttentionCall, candidates: np.ndarray) -> Tensor | None:
        """From the attention of the layer before the site [candidate]."""
        return None

    def score(self, session: Session, x: Tensor, candidates: np.ndarray) -> Tensor:
        """From the residual stream [candidate, channel] that enters the site's layer."""
        raise NotImplementedError(f"{self.kind} has no score()")


@dataclass(frozen=True)
class LastQuery(Score):
    """Attention from the last prompt position, mean over heads, in the layer before (FastV)."""

    needs_attention: ClassVar[bool] = True

    def read(self, session: Session, call: AttentionCall, candidates: np.ndarray) -> Tensor | None:
        weights = call.weights(call.index(np.array([session.layout.last])))[:, 0]
        return weights.mean(0)[call.key_index(candidates)]


@dataclass(frozen=True)
class Norm(Score):
    """L2 norm of the residual stream."""

    def score(self, session: Session, x: Tensor, candidates: np.ndarray) -> Tensor:
        return x.float().norm(dim=-1)


@dataclass(frozen=True)
class Uniform(Score):
    """Evenly spaced tokens in sequence order: a control that ignores what they hold."""

    def score(self, session: Session, x: Tensor, candidates: np.ndarray) -> Tensor:
        # In van der Corput order any number of leading tokens is close to evenly spaced.
        bits = max(1, (len(candidates) - 1).bit_length())
        rank = [int(f"{index:0{bits}b}"[::-1], 2) for index in range(len(candidates))]
        return -torch.tensor(rank, dtype=torch.float32)


@dataclass(frozen=True)
class Random(Score):
    """Random tokens: the control every reduction needs. Seeded, independent of the device."""

    seed: int = 0

    def score(self, session: Session, x: Tensor, candidates: np.ndarray) -> Tensor:
        return torch.from_numpy(np.random.default_rng(self.seed).random(len(candidates)))
