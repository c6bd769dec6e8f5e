"""Steer: a vector is added to the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
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
    from probe.engine.session import Session


@dataclass(frozen=True)
class Steer(Ablation):
    """Add `scale` times a direction to the residual stream that enters some layers.

    Attributes:
        direction: one number a channel, or a safetensors file: "file.safetensors" with one vector,
            or "file.safetensors#name".
        at: which positions; "text", "generated" and "all" include generated tokens.
        layers: which layers.
        scale: factor; 0 is neutral.
    """

    place: ClassVar[str] = "residual stream"
    source: ClassVar[str] = "activation addition (Turner et al. 2023, arXiv 2308.10248)"

    direction: Sequence[float] | np.ndarray | str
    at: Selection = "all"
    layers: Layers = "all"
    scale: float = 1.0

    def __str__(self) -> str:
        if isinstance(self.direction, str) or len(self.direction) < 5:
            return super().__str__()
        whole = super().__str__()
        return whole[: whole.index("[")] + "[...]" + whole[whole.index("]") + 1 :]

    def start(self, session: Session) -> dict | None:
        layers = resolve_layers(self.layers, session.model.n_layers, self.kind)
        direction = self._vector(session)
        try:
            positions = session.layout.select(self.at)
        except NoClip:
            return None
        if self.scale == 0 and not session.force:
            return None
        return {"layers": layers, "vector": direction, "positions": positions, "fired": False}

    def _vector(self, session: Session) -> Tensor:
        width = session.model.width
        if isinstance(self.direction, str):
            from probe.interop.safetensors import read_tensors

            path, _, name = self.direction.partition("#")
            tensors = read_tensors(path)
            if len(tensors) != 1 and name not in tensors:
                raise ProbeError(
                    f"{self.kind}: {path} has the tensors {', '.join(sorted(tensors))}; "
                    f'write one of them as "{path}#name"'
                )
            vector = tensors[name] if name in tensors else next(iter(tensors.values()))
        else:
            vector = torch.tensor(self.direction, dtype=torch.float64)
        if vector.shape != (width,) or not bool(torch.isfinite(vector).all() and vector.any()):
            raise ProbeError(
                f"{self.kind}: the direction has shape {tuple(vector.shape)}; "
                f"give {width} finite numbers, not all zero"
            )
        return vector.to(session.model.hf.device)

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> Tensor | None:
        if layer not in state["layers"]:
            return None
        rows = np.flatnonzero(np.isin(session.positions[layer], state["positions"]))
        if not len(rows):
            return None
        index = torch.as_tensor(rows, device=x.device)
        added = (self.scale * state["vector"].to(x.device)).to(x.dtype)
        changed = x.index_add(0, index, added.expand(len(rows), -1))
        state["fired"] |= not torch.equal(changed, x)
        return changed

    def finish(self, session: Session, state: dict) -> None:
        if not state["fired"] and not session.force:
            raise ProbeError(
                f"{self}: it changed no number of the residual stream; the ablation did not fire"
            )
