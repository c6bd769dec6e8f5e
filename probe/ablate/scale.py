"""Scale: the output of heads, attention, MLPs or whole layers times a factor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from probe.ablate.base import Ablation
from probe.errors import ProbeError
from probe.models.selection import NoClip, Selection
from probe.spec import Layers, resolve_layers

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.session import Session

PARTS = ("head", "attention", "mlp", "layer")


@dataclass(frozen=True)
class PartAblation(Ablation):
    """Base of ablations that change what a part of some layers puts out, at some positions.

    Attributes:
        part: "head" (each head's mix of values before the output projection), "attention" or
            "mlp" (what it adds to the residual stream), "layer" (both).
        layers: which layers.
        heads: which heads, where the part is "head".
        at: which positions; "text", "generated" and "all" include generated tokens; [] is neutral.
    """

    place: ClassVar[str] = "heads and MLPs"
    always_shown: ClassVar[tuple[str, ...]] = ("part",)

    part: str = "head"
    layers: Layers = "all"
    heads: Layers = "all"
    at: Selection = "all"

    def listens(self, event: str) -> bool:
        unused = {"head_outputs": self.part != "head", "output": self.part == "head"}
        return super().listens(event) and not unused.get(event, False)

    def start(self, session: Session) -> dict | None:
        if self.part not in PARTS:
            raise ProbeError(f'{self.kind}: part "{self.part}"; there are {", ".join(PARTS)}')
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        heads = resolve_heads(self.heads, session.model.n_heads, self.kind)
        if self.part != "head" and self.heads != "all":
            raise ProbeError(f'{self.kind}: part "{self.part}" has no heads; write part="head"')
        positions = chosen(session, self.at)
        if positions is None:
            return None
        return {"layers": layers, "heads": heads, "positions": positions, "fired": False}

    def change(
        self, session: Session, state: dict, layer: int, part: str, y: Tensor, rows: np.ndarray
    ) -> Tensor:
        """New values of some rows.

        Args:
            session: the run.
            state: of this ablation in the run.
            layer: which layer.
            part: "head", "attention" or "mlp".
            y: every row of this forward: [row, head, channel] for "head", else [row, channel].
            rows: numbers of the rows to change.
        """
        raise NotImplementedError(f"{self.kind} has no change()")

    def head_outputs(
        self, session: Session, state: dict, call: AttentionCall, y: Tensor
    ) -> Tensor | None:
        if self.part != "head":
            return None
        return self._apply(session, state, call.layer, "head", y)

    def output(
        self, session: Session, state: dict, layer: int, part: str, y: Tensor
    ) -> Tensor | None:
        if self.part not in (part, "layer"):
            return None
        return self._apply(session, state, layer, part, y)

    def _apply(
        self, session: Session, state: dict, layer: int, part: str, y: Tensor
    ) -> Tensor | None:
        if layer not in state["layers"]:
            return None
        self.see(session, state, layer, part, y)
        rows = np.flatnonzero(np.isin(session.positions[layer], state["positions"]))
        if not len(rows):
            return None
        new = self.change(session, state, layer, part, y, rows).to(y)
        changed = y.clone()
        index = torch.as_tensor(rows, device=y.device)
        if part == "head":
            heads = torch.as_tensor(state["heads"], device=y.device)
            changed[index[:, None], heads] = new[:, heads]
        else:
            changed[index] = new
        state["fired"] |= not torch.equal(changed, y)
        return changed

    def see(self, session: Session, state: dict, layer: int, part: str, y: Tensor) -> None:
        """Every row of a forward, before any is changed, also where none will be."""

    def affects(self, session: Session, state: dict) -> tuple[int, int]:
        return state["layers"][0], int(state["positions"][0])

    def finish(self, session: Session, state: dict) -> None:
        if not state["fired"] and not session.force:
            raise ProbeError(
                f"{self}: it changed no number of what the {self.part}s put out; "
                "the ablation did not fire"
            )


@dataclass(frozen=True)
class Scale(PartAblation):
    """Multiply the output of heads, attention, MLPs or layers by a factor.

    Attributes:
        part, layers, heads, at: as in `PartAblation`; a whole layer is what its attention and
            its MLP add to the residual stream.
        factor: 1 is neutral, 0 takes the part away.
    """

    source: ClassVar[str] = "head masks (Michel et al. 2019, arXiv 1905.10650)"
    always_shown: ClassVar[tuple[str, ...]] = ("part", "factor")

    factor: float = 0.0

    def start(self, session: Session) -> dict | None:
        state = super().start(session)
        if not math.isfinite(self.factor):
            raise ProbeError(f"{self.kind}: factor {self.factor} is not a finite number")
        return None if self.factor == 1 and not session.force else state

    def change(
        self, session: Session, state: dict, layer: int, part: str, y: Tensor, rows: np.ndarray
    ) -> Tensor:
        return y[torch.as_tensor(rows, device=y.device)] * self.factor


def chosen(session: Session, at: Selection) -> np.ndarray | None:
    """Positions that a selection names; None where it is [], or needs a clip that is not there."""
    if not isinstance(at, str | int) and len(at) == 0:
        return None
    try:
        return session.layout.select(at)
    except NoClip:
        return None


def resolve_heads(heads: Layers, count: int, owner: str) -> tuple[int, ...]:
    """Heads as sorted 0-based numbers: an int, a range or list, "all", "3" or "2-5".

    Raises:
        ProbeError: a head that the model does not have, or no head at all.
    """
    try:
        return resolve_layers(heads, count, "")
    except ProbeError as error:
        raise ProbeError(owner + str(error).replace("layer", "head")) from None
