"""One run of one model: hooks and the seam go in, events go out, everything is put back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from probe.ablate.base import Ablation
from probe.capture.base import Capture
from probe.capture.sweep import Sweep
from probe.engine import seam
from probe.engine.attend import attend
from probe.engine.attributes import Attributes
from probe.engine.deepstack import Deepstack
from probe.engine.hooks import after, implements, numbered, told, vision_hooks
from probe.engine.rotary import Rotary
from probe.engine.shorten import refuse_forgetful, shorten
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.layout import Layout
    from probe.models.video_model import VideoModel


class Session:
    """Context manager; inside it every forward of the model is captured and ablated.

    Attributes:
        model, layout: what runs, and what its positions are.
        generating: True in `generate`, where every forward has one row that is read.
        step: number of the forward pass: 0 is the prompt.
        positions: per layer, the layout positions of the rows of this forward.
        present: per layer, the layout positions in the layer (its keys), rows of all steps.
        emitted: after `generate`, the token of each step.
        force: take the full path even where an ablation is neutral (for tests).
        gradient: a capture wants gradients; autograd is on from the merged embeddings on.
    """

    def __init__(
        self,
        model: VideoModel,
        example: Example,
        captures: Sequence[Capture] = (),
        ablations: Sequence[Ablation] = (),
        layout: Layout | None = None,
        force: bool = False,
    ) -> None:
        self.model, self.example = model, example
        self.layout = layout or example.layout
        self.generating = layout is not None
        self.force = force
        self.gradient = any(capture.needs_gradient for capture in captures)
        self.step = -1
        self.positions: list[np.ndarray] = []
        self.present: list[np.ndarray] = [np.zeros(0, np.int64)] * model.n_layers
        self.emitted: list[int] = []
        self.sweep = Sweep()
        self.vision = vision_hooks(self, captures)
        self.captures = [(capture, capture.start(self)) for capture in captures]
        started = [(ablation, ablation.start(self)) for ablation in ablations]
        self.ablations = [(a, state) for a, state in started if state is not None]
        self._reducing = any(implements(a, "survivors") for a, _ in self.ablations)
        self._undo: list[Any] = []
        self._own: dict[nn.Module, Any] = {}
        self._numbers: dict[nn.Module, int] = {}
        self.rotary, self._deepstack = Rotary(), Deepstack()

    # -- in and out ------------------------------------------------------------------------

    def __enter__(self) -> Session:
        if self.model.hf.training:
            raise ProbeError(f"{self.model.name}: the model is in training mode; call .hf.eval()")
        if not self.model.lock.acquire(blocking=False):
            raise ProbeError(f"{self.model.name}: in use by another run; load it once a run")
        self._token = seam.current.set(self)
        self._attributes = Attributes(self.model.hf)
        try:
            self._install()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.vision is not None:
            self.vision.leave()
        for handle in self._undo:
            handle.remove()
        for module, config in self._own.items():
            module.config = config
        self._undo, self._own = [], {}
        self._attributes.restore()
        seam.current.reset(self._token)
        self.model.lock.release()

    def finish(self) -> None:
        """Let every ablation prove that it fired, and every vision layer that it was reached."""
        if self.vision is not None:
            self.vision.finish()
        for ablation, state in self.ablations:
            ablation.finish(self, state)

    def _install(self) -> None:
        model, family = self.model, self.model.family
        listening = [a for a, _ in (*self.captures, *self.ablations)]

        def anyone(*events: str) -> bool:
            return self.gradient or any(implements(a, e) for a in listening for e in events)

        self._undo.append(model.decoder.register_forward_pre_hook(self._begin, with_kwargs=True))
        for number, layer in enumerate(model.layers):
            attention = layer.get_submodule(family.attention)
            if anyone("attention", "edit"):
                self._own[attention] = seam.install(attention)
                self._numbers[attention] = number
            enter = numbered(self._enter, number)
            self._undo.append(layer.register_forward_pre_hook(enter, with_kwargs=True))
            self._undo.append(layer.register_forward_hook(after(self._leave, number)))
            if anyone("output"):
                for part, path in zip(("attention", "mlp"), family.added, strict=True):
                    hook = told(self, number, part)
                    self._undo.append(layer.get_submodule(path).register_forward_hook(hook))
        self._undo.append(model.decoder.norm.register_forward_pre_hook(self._final))
        if self._reducing:
            self._undo.append(model.decoder.norm.register_forward_hook(self._restore_length))
        if self.vision is not None:
            self.vision.enter()

    # -- events of one forward -------------------------------------------------------------

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """A forward starts: which positions are its rows, and their explicit position ids."""
        if seam.current.get() is not self:
            raise ProbeError(f"{self.model.name}: in use by another run; load it once a run")
        x = kwargs.get("inputs_embeds")
        shape = (kwargs["input_ids"] if x is None else x).shape
        cache = kwargs.get("past_key_values")
        if self._reducing:
            refuse_forgetful(cache, len(self.layout), self.model.name)
        if cache is None or cache.get_seq_length() == 0:
            self.step, first = 0, 0
            self.present = [np.zeros(0, np.int64)] * self.model.n_layers
        else:
            self.step, first = self.step + 1, int(self.present[0][-1]) + 1
        wrong = self.step == 0 and shape[1] != len(self.prompt)
        if wrong or shape[0] != 1 or first + shape[1] > len(self.layout):
            raise ProbeError(
                f"the forward pass does not fit the example of this run: {shape[0]} x {shape[1]} "
                f"tokens at position {first}; one sequence of {len(self.prompt)} is expected "
                "(no batches, beams or chunked prefill)"
            )
        rows = np.arange(first, first + shape[1])
        self.positions = [rows] * self.model.n_layers
        kwargs["position_ids"] = self.model.position_ids(self.example, rows)
        mask = kwargs.get("attention_mask")
        if self._reducing and isinstance(mask, Tensor) and mask.dim() == 2 and bool(mask.all()):
            kwargs["attention_mask"] = None
        return args, self._deepstack.take(kwargs)

    @property
    def prompt(self) -> np.ndarray:
        """Positions of the tokens that the first forward processes."""
        return np.arange(self.example.inputs["input_ids"].shape[1])

    def _enter(self, layer: int, module: nn.Module, args: tuple, kwargs: dict) -> tuple:
        x = args[0] if args else kwargs["hidden_states"]
        self.rotary.grow(layer, kwargs.get("position_embeddings"), first=self.step == 0)
        if layer == 0:
            if self.gradient:  # until the run's no_grad ends; the vision tower keeps no graph
                torch.set_grad_enabled(True)
                x = x.detach().requires_grad_()
            self.tell("embedding", x[0])
        if self.step == 0:
            for ablation, state in self.ablations:
                kept = ablation.survivors(self, state, layer, x[0])
                if kept is not None:
                    inside = np.flatnonzero(np.isin(self.positions[layer], kept))
                    x = x[:, torch.as_tensor(inside, device=x.device)]
                    left = self.positions[layer][inside]
                    self.positions[layer:] = [left] * (self.model.n_layers - layer)
        self.present[layer] = np.concatenate([self.present[layer], self.positions[layer]])
        if len(self.present[layer]) <= self._first_rows()[-1]:
            rows, keys = self.positions[layer], self.present[layer]
            kwargs = shorten(kwargs, self._first_rows(), rows, keys)
        for ablation, state in self.ablations:
            changed = ablation.residual(self, state, layer, x[0])
            x = x if changed is None else changed[None].to(x)
        self.trace("residual", layer, x)
        self.tell("residual", layer, x[0])
        return ((x, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": x})

    def _leave(self, layer: int, module: nn.Module, output: Any) -> Any:
        """Add the layer's vision features, in families that have them."""
        x = output[0] if isinstance(output, tuple) else output
        stacked = self._deepstack.after(layer, x, self.positions[layer])
        if stacked is None:
            return None
        x, added = stacked
        self.tell("output", layer, "deepstack", added[0])
        return (x, *output[1:]) if isinstance(output, tuple) else x

    def _first_rows(self) -> np.ndarray:
        """Rows of this forward before any reduction."""
        return self.prompt if self.step == 0 else self.positions[0]

    def _final(self, module: nn.Module, args: tuple) -> None:
        self.tell("final", args[0][0])

    def _restore_length(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        """Full length again, NaN at dropped positions, so that readout indices stay right."""
        rows, last = self._first_rows(), self.positions[-1]
        if len(last) == len(rows):
            return None
        full = output.new_full((output.shape[0], len(rows), output.shape[2]), float("nan"))
        full[:, torch.as_tensor(np.flatnonzero(np.isin(rows, last)))] = output
        return full

    # -- attention -------------------------------------------------------------------------

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        kwargs: dict,
    ) -> tuple[Tensor, Tensor | None]:
        """The module's own attention, then the edits of ablations, then captures."""
        if self.vision is not None and self.vision.owns(module):
            return self.vision.attend(module, query, key, value, mask, kwargs)
        own = self._own[module]._attn_implementation
        return attend(self, self._numbers[module], own, module, query, key, value, mask, kwargs)

    # -- telling captures ------------------------------------------------------------------

    def tell(self, event: str, *what: Any) -> None:
        """Tell every capture of an event; tensors are outside the graph of gradients."""
        if self.gradient:
            what = tuple(w.detach() if isinstance(w, Tensor) else w for w in what)
        with torch.no_grad():
            for capture, state in self.captures:
                getattr(capture, event)(self, state, *what)

    def trace(self, site: str, layer: int, x: Tensor) -> None:
        """Show captures that want gradients the tensor that the model goes on with."""
        for capture, state in self.captures if self.gradient else ():
            if capture.needs_gradient:
                capture.trace(self, state, site, layer, x)

    def backward(self, logits: Tensor) -> None:
        """Let captures that asked for it take gradients of the logits [readout, vocab]."""
        for capture, state in self.captures if self.gradient else ():
            if capture.needs_gradient:
                capture.backward(self, state, logits)
