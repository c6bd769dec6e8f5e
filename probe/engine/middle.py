"""Reductions between attention and MLP of a decoder layer: its keys are full, its MLP is not.

The layer adds the MLP's output to a stream of full length that it holds itself. What the MLP gets
is made anew from the reduced stream by the layer's own norm; its output is put at the anchors'
rows, with what a merge changed there, and the other rows leave the stream behind the layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from probe.ablate.reduction.weights import Weights
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.engine.session import Session


class Middle:
    """The middle of one decoder layer of a session."""

    def __init__(self, session: Session, layer: int) -> None:
        self.session, self.layer = session, layer
        self.module = session.model.layers[layer]
        self._entered: Tensor | None = None
        self._added: Tensor | None = None
        self._norms: list[tuple[nn.Module, Tensor]] = []
        self._cut: tuple[Weights, Tensor, Tensor] | None = None

    def hooks(self) -> list[Any]:
        """Handles of the hooks; the layer's own pre-hook calls `enter`."""
        family, handles = self.session.model.family, []
        for child in self.module.children():
            if "norm" in type(child).__name__.lower():
                handles.append(child.register_forward_hook(self._normed))
        attention, mlp = (self.module.get_submodule(path) for path in family.added)
        handles.append(attention.register_forward_hook(self._attended))
        before = self.module.get_submodule(family.mlp)
        handles.append(before.register_forward_pre_hook(self._before))
        handles.append(mlp.register_forward_hook(self._after))
        return handles

    def enter(self, x: Tensor) -> None:
        """The stream [1, row, channel] as the layer gets it."""
        self._entered, self._norms, self._cut = x, [], None

    def _normed(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self._norms.append((module, output))

    def _attended(self, module: nn.Module, args: tuple, output: Any) -> None:
        self._added = output[0] if isinstance(output, tuple) else output

    def _before(self, module: nn.Module, args: tuple) -> tuple | None:
        session = self.session
        if session.step or self._entered is None or self._added is None:
            return None
        stream = self._entered + self._added
        for ablation, state in session.ablations:
            w = ablation.middle(session, state, self.layer, stream[0])
            if w is None or w.is_identity:
                continue
            norm = next((norm for norm, out in self._norms if out is args[0]), None)
            if norm is None:
                raise ProbeError(
                    f"{ablation}: the MLP of layer {self.layer} gets what no norm of its layer "
                    f"made; use at=layer({self.layer + 1})"
                )
            left = w.apply(stream[0])[None]
            rows = torch.as_tensor(w.anchor, device=stream.device)
            self._cut = w, rows, left - stream[:, rows]
            return (norm(left), *args[1:])
        return None

    def _after(self, module: nn.Module, args: tuple, output: Any) -> Any:
        if self._cut is None:
            return None
        y = output[0] if isinstance(output, tuple) else output
        w, rows, moved = self._cut
        full = y.new_zeros(y.shape[0], w.size, y.shape[2])
        full[:, rows] = y + moved
        return (full, *output[1:]) if isinstance(output, tuple) else full

    def leave(self, x: Tensor) -> Tensor | None:
        """The stream behind the layer, of the rows that are left; None where all are."""
        self._entered, self._added, self._norms = None, None, []
        if self._cut is None:
            return None
        (w, rows, _), self._cut = self._cut, None
        positions = self.session.positions
        left = positions[self.layer][w.anchor]
        self.session.meter.middles[self.layer] = len(left)
        positions[self.layer + 1 :] = [left] * (len(positions) - self.layer - 1)
        return x[:, rows]
