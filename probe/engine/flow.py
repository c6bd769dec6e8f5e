"""The residual stream of a session's forwards: shortened, passed by, changed, and told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from probe.engine.deepstack import Deepstack
from probe.engine.peek import peek
from probe.engine.rotary import Rotary, tables
from probe.engine.rows import Rows
from probe.engine.shorten import refuse_forgetful, shorten
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.engine.call import AttentionCall
    from probe.engine.middle import Middle
    from probe.engine.reuse import Clean
    from probe.engine.session import Session

CHANGES_LENGTH = ("reduce", "middle", "bypass", "evict")


class Flow:
    """What happens to the stream between the layers, for one session.

    Attributes:
        rows: which positions are in which layer.
        rotary: tables of all positions so far.
        peeking: a layer is run only as far as its attention.
        record: keeps what enters the layers of an untouched run, for sweeps.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.model = session, session.model
        self.rows = Rows(session.model.n_layers, len(session.layout))
        self.rotary, self.deepstack = Rotary(), Deepstack()
        self.peeking = False
        self.middles: dict[int, Middle] = {}
        self.record: Clean | None = None
        self._resumed = False
        self._entering: tuple[Any, tuple, dict] | None = None
        self._passed: dict[int, tuple[Tensor, np.ndarray, Tensor]] = {}

    @property
    def ablations(self) -> list:
        """The session's, with their states."""
        return self.session.ablations

    @property
    def axes(self) -> int:
        """Axes of the rotary positions: 1 or 3."""
        ids = self.model.position_ids(self.session.example, np.arange(1))
        return 3 if ids.dim() == 3 else 1

    def ids(self, layer: int) -> Tensor:
        """Position ids [axis.., 1, position] of the whole layout in a layer, as they are now."""
        numbers = self.rows.numbers[layer]
        every = np.arange(len(self.session.layout))
        return self._position_ids(every) if numbers is None else numbers

    def _position_ids(self, rows: np.ndarray) -> Tensor:
        ids = self.model.position_ids(self.session.example, rows)
        for ablation, state in self.ablations:
            changed = ablation.ids(self.session, state, rows, ids)
            ids = ids if changed is None else changed
        return ids

    def begin(self, kwargs: dict) -> dict:
        """A forward starts: which positions are its rows, and their explicit position ids."""
        session, rows = self.session, self.rows
        x = kwargs.get("inputs_embeds")
        shape = (kwargs["input_ids"] if x is None else x).shape
        cache = kwargs.get("past_key_values")
        shortens = session.anyone(*CHANGES_LENGTH)
        if shortens:
            refuse_forgetful(cache, len(session.layout), self.model.name)
        anew = cache is None or cache.get_seq_length() == 0
        first = 0 if anew else rows.count
        wrong = anew and shape[1] != len(session.prompt)
        if wrong or shape[0] != 1 or first + shape[1] > len(session.layout):
            raise ProbeError(
                f"the forward pass does not fit the example of this run: {shape[0]} x {shape[1]} "
                f"tokens at position {first}; one sequence of {len(session.prompt)} is expected "
                "(no batches, beams or chunked prefill)"
            )
        rows.begin(shape[1], anew)
        for ablation, state in self.ablations if rows.step else ():
            rows.evict(cache, ablation.evict(session, state) or {})
        ids = self._position_ids(rows.first)
        mask = kwargs.get("attention_mask")
        if rows.step and isinstance(mask, Tensor) and mask.dim() == 2 and bool(mask.all()):
            mask = None if shortens else mask
        return self.deepstack.take(kwargs | {"position_ids": ids, "attention_mask": mask})

    def resume(self, clean: Clean, layer: int, row: int) -> None:
        """A forward starts in the middle: earlier layers and rows are those of a clean run."""
        every = np.arange(len(self.session.prompt))
        self.rows.begin(len(every), True)
        self.rows.first = every[row:]
        self.rows.positions = [every[row:]] * self.model.n_layers
        for number in range(self.model.n_layers):
            self.rows.present[number] = every if number < layer else every[:row]
            found = clean.arguments[number].get("position_embeddings")
            self.rotary.grow(number, found, first=True)
        self.deepstack, self._resumed = clean.deepstack, True

    def enter(self, layer: int, module: nn.Module, args: tuple, kwargs: dict) -> tuple:
        """The stream enters a layer."""
        if self.peeking:
            return args, kwargs
        session, rows = self.session, self.rows
        x = args[0] if args else kwargs["hidden_states"]
        if layer == 0:
            if session.gradient:  # until the run's no_grad ends; the vision tower keeps no graph
                torch.set_grad_enabled(True)
                x = x.detach().requires_grad_()
            session.tell("embedding", x[0])
        if rows.step == 0:
            x = self._shorten(layer, module, x, kwargs)
        if self.record is not None:
            self.record.enter(layer, x, kwargs)
        kwargs = self._tables(layer, x, kwargs)
        passed = self._bypass(layer, x) if rows.step == 0 else None
        x = x if passed is None else passed
        rows.enter(layer)
        if not (rows.complete(layer) and rows.complete(0)):
            kwargs = shorten(kwargs, rows.first, rows.positions[layer], rows.present[layer])
        if session.anyone("residual"):
            x = session.change("residual", x[0], layer)[None]
        if layer in self.middles:
            self.middles[layer].enter(x)
        session.trace("residual", layer, x)
        session.tell("residual", layer, x[0])
        return ((x, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": x})

    def _shorten(self, layer: int, module: nn.Module, x: Tensor, kwargs: dict) -> Tensor:
        for ablation, state in self.ablations:
            self._entering = (module, (x,), kwargs)
            w = ablation.reduce(self.session, state, layer, x[0])
            if w is not None:
                x = self.rows.shorten(layer, x, w)
        self._entering = None
        return x

    def _tables(self, layer: int, x: Tensor, kwargs: dict) -> dict:
        """The layer's arguments with the rotary tables that ablations want."""
        numbers, rows = self.rows.numbers[layer], self.rows.first
        found = kwargs.get("position_embeddings")
        if numbers is not None:
            ids = numbers[..., torch.as_tensor(rows, device=numbers.device)]
            found = tables(self.model, x, ids, layer)
            kwargs = kwargs | {"position_embeddings": found, "position_ids": ids}
        for ablation, state in self.ablations if found is not None else ():
            changed = ablation.tables(self.session, state, layer, found)
            if changed is not None:
                found = changed
                kwargs = kwargs | {"position_embeddings": found}
        if not self._resumed:
            self.rotary.grow(layer, found, first=self.rows.step == 0)
        return kwargs

    def _bypass(self, layer: int, x: Tensor) -> Tensor | None:
        for ablation, state in self.ablations:
            through = ablation.bypass(self.session, state, layer, x[0])
            if through is not None:
                index = torch.as_tensor(through, device=x.device)
                self._passed[layer] = (x, self.rows.positions[layer], index)
                self.rows.positions[layer] = self.rows.positions[layer][through]
                return x[:, index]
        return None

    def peek(self, layer: int) -> AttentionCall:
        """In `reduce`: the attention that the layer is about to compute over what enters it."""
        if self._entering is None:
            raise RuntimeError("peek is for reductions, while the stream enters their layer")
        module, args, kwargs = self._entering
        rows = self.rows.positions[layer]
        kwargs = self._tables(layer, args[0], kwargs)
        kwargs = shorten(kwargs, self.rows.first, rows, rows)
        kwargs = {k: v for k, v in kwargs.items() if k != "hidden_states"}
        self.peeking = True
        try:
            return peek(module, args, kwargs)
        finally:
            self.peeking = False

    def leave(self, layer: int, module: nn.Module, output: Any) -> Any:
        """The stream leaves a layer: rows that passed it by come back, vision features are added
        in families that have them.
        """
        x = changed = output[0] if isinstance(output, tuple) else output
        rows = self.rows.positions[layer]
        if layer in self.middles:
            shorter = self.middles[layer].leave(x)
            if shorter is not None:
                changed, rows = shorter, self.rows.positions[layer + 1]
        if layer in self._passed:
            whole, rows, index = self._passed.pop(layer)
            changed = whole.clone()
            changed[:, index] = x
        stacked = self.deepstack.after(layer, changed, rows)
        if stacked is not None:
            changed, added = stacked
            self.session.tell("output", layer, "deepstack", added[0])
        if changed is x:
            return None
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    def final(self, module: nn.Module, args: tuple) -> None:
        """The stream before the last norm."""
        self.session.tell("final", args[0][0])

    def restore_length(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        """Full length again, NaN at dropped positions, so that readout indices stay right."""
        rows, last = self.rows.first, self.rows.positions[-1]
        if output.shape[1] == len(rows):
            return None
        full = output.new_full((output.shape[0], len(rows), output.shape[2]), float("nan"))
        full[:, torch.as_tensor(np.flatnonzero(np.isin(rows, last)))] = output
        return full
