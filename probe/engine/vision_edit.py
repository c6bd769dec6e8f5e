"""Fewer tokens, and other layers, inside the vision tower of a run.

Between layers the tower's stream keeps its full shape, so that everything around it (pooling,
projector, placeholders) is as it was; each layer computes only the tokens that are left. What is
gone is left out of the prompt where it enters the decoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from probe.ablate.reduction.weights import Weights
from probe.engine.hooks import implements
from probe.engine.vision_order import Order
from probe.engine.vision_parts import vision_tower
from probe.engine.vision_tokens import VisionTokens
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.engine.session import Session

EDITS = ("vision_tokens", "vision_layer")


class VisionEdit:
    """What a session changes inside the vision tower.

    Attributes:
        tower: its layers.
        tokens: of the forward that is on.
        alive: numbers of the tokens that are left; None for all.
        mass: of each token, how many it stands for.
        shapes: (frames, tokens of each) that each layer computed, where frames are a batch.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.tower = session, vision_tower(session.model)
        self.tokens: VisionTokens | None = None
        self.alive: np.ndarray | None = None
        self.mass = np.zeros(0)
        self.shapes: list[tuple[int, int]] = []
        self._order = Order(self.tower)
        self._full: Tensor | None = None
        self._inputs: dict[int, Tensor] = {}
        self._undo: list[Any] = []

    def enter(self) -> None:
        """Install the hooks; they run before those that read the tower."""
        undo = self._undo
        undo += self._order.hooks()
        for number, layer in enumerate(self.tower.layers):
            undo.append(layer.register_forward_pre_hook(self._before(number), with_kwargs=True))
            undo.append(layer.register_forward_hook(self._after(number), prepend=True))
        if self.tower.projector is not None:
            projected = self.tower.projector.register_forward_pre_hook(
                self._projector, with_kwargs=True
            )
            undo.append(projected)

    def leave(self) -> None:
        """Put everything back."""
        for handle in self._undo:
            handle.remove()
        self._undo, self._full, self._inputs = [], None, {}
        self._order.forget()

    def _before(self, number: int) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            x = args[0] if args else kwargs["hidden_states"]
            if number == 0:
                self.alive, self.tokens = None, self._order.tokens(x, kwargs)
                self.mass = np.ones(len(self.tokens))
            self._inputs[number] = x
            if self.alive is None:
                self._count(x)
                return None
            if any(isinstance(v, Tensor) for v in (*args[1:], *kwargs.values()) if v is not x):
                raise ProbeError(
                    f"{self.session.model.name}: the layers of its vision tower get masks or "
                    "positions beside their tokens, so tokens cannot be taken out between them; "
                    "use at=tokens()"
                )
            self._full = x
            compact = self._compact(x)
            self._count(compact)
            if args:
                return (compact, *args[1:]), kwargs
            return args, kwargs | {"hidden_states": compact}

        return hook

    def _count(self, x: Tensor) -> None:
        if not self._order.sequence:
            self.shapes.append((x.shape[0], x.shape[1]))

    def _compact(self, x: Tensor) -> Tensor:
        """[frame, token, channel] of the tokens that are left."""
        assert self.alive is not None
        frame = self.alive // x.shape[1]
        counts = np.unique(frame, return_counts=True)[1]
        if len(set(counts.tolist())) != 1:
            raise ProbeError(
                f"{self.session.model.name}: its vision tower takes frames as a batch, so every "
                "frame that is left must keep equally many tokens in it; use segment=PerFrame()"
            )
        rows = torch.as_tensor(self.alive, device=x.device)
        return x.flatten(0, 1)[rows].view(len(counts), -1, x.shape[-1])

    def _after(self, number: int) -> Any:
        def hook(module: nn.Module, args: tuple, output: Any) -> Any:
            x = changed = output[0] if isinstance(output, tuple) else output
            if self.alive is not None:
                assert self._full is not None
                changed = self._full.clone()
                rows = torch.as_tensor(self.alive, device=x.device)
                changed.flatten(0, 1)[rows] = x.reshape(-1, x.shape[-1])
            before = self._inputs.pop(number)
            for ablation, state in self.session.ablations:
                if implements(ablation, "vision_layer"):
                    found = ablation.vision_layer(self.session, state, number, before, changed)
                    changed = changed if found is None else found
            changed = self._reduce(number, changed)
            if changed is x:
                return None
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook

    def _reduce(self, place: int | str, x: Tensor) -> Tensor:
        """The stream [frame, token, channel] with what reductions make of it at a place."""
        assert self.tokens is not None
        for ablation, state in self.session.ablations:
            if not implements(ablation, "vision_tokens"):
                continue
            if self._order.sequence and place != "out":
                raise ProbeError(
                    f"{ablation}: the vision tower of {self.session.model.name} takes all frames "
                    "as one sequence, whose tokens cannot be taken out between its layers; use "
                    "at=tokens()"
                )
            flat = x.flatten(0, -2)
            alive = np.arange(len(flat)) if self.alive is None else self.alive
            rows = torch.as_tensor(self.tokens.order[alive], device=x.device)
            w: Weights | None = ablation.vision_tokens(self.session, state, place, flat[rows])
            if w is None or w.is_identity:
                continue
            self.alive = alive[w.anchor]
            if not w.is_selection:
                flat = flat.clone()
                flat[rows[torch.as_tensor(w.anchor, device=x.device)]] = w.apply(flat[rows])
                x = flat.view_as(x)
        return x

    def _projector(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        """Features on their way into the projector: the place "out"."""
        if self.tokens is None or not any(isinstance(v, Tensor) for v in args):
            return None
        x = args[0]
        cells = [v.cells for v in self.session.layout.visuals if v.cells]
        tower = self.tokens
        self.tokens = self._order.merged(tower, x.flatten(0, -2).shape[0], cells)
        if self.alive is not None and len(self.tokens) != len(tower):
            self.alive = None  # whole frames are gone, or `vision_tokens` has refused before
        if len(self.mass) != len(self.tokens):
            self.mass = np.ones(len(self.tokens))
        changed = self._reduce("out", x)
        self.tokens = None
        return None if changed is x else ((changed, *args[1:]), kwargs)


def vision_edit(session: Session, ablations: Any) -> VisionEdit | None:
    """The edits of the vision tower, where an ablation makes any."""
    if not session.layout.visuals:
        return None
    wanted = any(implements(one, event) for one in ablations for event in EDITS)
    return VisionEdit(session) if wanted else None
