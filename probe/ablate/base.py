"""What an ablation is: a frozen description, where it acts, and proof that it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from probe.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session


@dataclass(frozen=True)
class Ablation(Spec):
    """Base of all ablations. Implement `start` and the events of the place it acts on.

    `start` checks the arguments against the model and the layout before anything runs, and
    returns None where they are neutral: the run is then bit-identical to the untouched one.
    `finish` raises when a non-neutral ablation changed nothing it claims to change.
    """

    place: ClassVar[str] = "mask"
    source: ClassVar[str] = ""

    def start(self, session: Session) -> dict[str, Any] | None:
        """Check arguments; return this run's state, or None for a neutral ablation."""
        return {}

    def edit(self, session: Session, state: dict, call: AttentionCall) -> None:
        """Before an attention layer's output is used: cut edges, remove rotation."""

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        """One attention layer of the prefill has run, edits applied (for scores)."""

    def survivors(self, session: Session, state: dict, layer: int, x: Tensor) -> np.ndarray | None:
        """Prefill only: layout positions that go on into `layer`; None for all of them.

        `x` is the residual stream [row, channel] that enters the layer.
        """

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> Tensor | None:
        """The residual stream [row, channel] that enters a layer, in every forward; a changed one
        takes its place. `session.positions[layer]` says which layout positions the rows are.
        """

    def finish(self, session: Session, state: dict) -> None:
        """Prove that it fired.

        Raises:
            ProbeError: it changed nothing that it claims to change.
        """
