"""One run of one model: hooks and the seam go in, events go out, everything is put back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from probe.ablate.base import Ablation
from probe.capture.base import Capture
from probe.capture.sweep import Sweep
from probe.engine import hooks, seam
from probe.engine.attend import attend
from probe.engine.attributes import Attributes
from probe.engine.cost_meter import Meter
from probe.engine.flow import Flow
from probe.engine.middle import Middle
from probe.engine.stored_features import stored_features
from probe.engine.vision_edit import vision_edit
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.layout import Layout
    from probe.models.video_model import VideoModel


class Session:
    """Context manager; inside it every forward of the model is captured and ablated.

    Attributes:
        model, example, layout: what runs, on what, and what its positions are.
        given: the example before ablations prepared it.
        meter: time and memory of what runs inside `with session.meter`.
        generating: True in `generate`, where every forward has one row that is read.
        emitted: after `generate`, the token of each step.
        force: take the full path even where an ablation is neutral (for tests).
        gradient: a capture wants gradients; autograd is on from the merged embeddings on.
        flow: the residual stream of each forward, and which rows are in which layer.
        reductions: what every reduction did, in order.
    """

    def __init__(
        self,
        model: VideoModel,
        example: Example,
        captures: Sequence[Capture] = (),
        ablations: Sequence[Ablation] = (),
        layout: Layout | None = None,
        force: bool = False,
        given: Example | None = None,
    ) -> None:
        self.model, self.example, self.given = model, example, given or example
        self.layout = layout or example.layout
        self.generating = layout is not None
        self.force = force
        self.gradient = any(capture.needs_gradient for capture in captures)
        self.emitted: list[int] = []
        self.reductions: list[Any] = []
        self.sweep = Sweep()
        self.flow, self.meter = Flow(self), Meter(model.hf.device)
        self.vision = hooks.vision_hooks(self, captures, ablations)
        self.edits: Any = vision_edit(self, ablations)
        self.stored = stored_features(self)
        self.captures = [(capture, capture.start(self)) for capture in captures]
        started = [(ablation, ablation.start(self)) for ablation in ablations]
        self.ablations = [(a, state) for a, state in started if state is not None]
        self._listening: dict[str, bool] = {}
        self._undo: list[Any] = []
        self._own: dict[nn.Module, Any] = {}
        self._numbers: dict[nn.Module, int] = {}

    @property
    def step(self) -> int:
        """Number of the forward pass: 0 is the prompt."""
        return self.flow.rows.step

    @property
    def positions(self) -> list[np.ndarray]:
        """Per layer, the layout positions of the rows of this forward."""
        return self.flow.rows.positions

    @property
    def present(self) -> list[np.ndarray]:
        """Per layer, the layout positions in the layer (its keys), rows of all steps."""
        return self.flow.rows.present

    @property
    def prompt(self) -> np.ndarray:
        """Positions of the tokens that the first forward processes."""
        return np.arange(self.example.inputs["input_ids"].shape[1])

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What the model is called with for the prompt: without pixels where a store of vision
        features has what becomes of them.
        """
        return self.example.inputs if self.stored is None else self.stored.inputs()

    # -- in and out ------------------------------------------------------------------------

    def __enter__(self) -> Session:
        if self.model.hf.training:
            raise ProbeError(f"{self.model.name}: the model is in training mode; call .hf.eval()")
        self._attributes = Attributes(self.model.hf)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give()
        self._attributes.restore()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Between two forwards: the model is as without this session, for another one's use."""
        self._give()
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        if not self.model.lock.acquire(blocking=False):
            raise ProbeError(f"{self.model.name}: in use by another run; load it once a run")
        self._token = seam.current.set(self)
        try:
            self._install()
        except BaseException:
            self.__exit__()
            raise

    def _give(self) -> None:
        for part in (self.vision, self.edits):
            if part is not None:
                part.leave()
        for handle in self._undo:
            handle.remove()
        for module, config in self._own.items():
            module.config = config
        self._undo, self._own = [], {}
        seam.current.reset(self._token)
        self.model.lock.release()

    def _install(self) -> None:
        model, family, undo = self.model, self.model.family, self._undo
        undo.append(model.decoder.register_forward_pre_hook(self._begin, with_kwargs=True))
        for number, layer in enumerate(model.layers):
            attention = layer.get_submodule(family.attention)
            if self.force or self.gradient or self.anyone("attention", "edit", "head_outputs"):
                self._own[attention] = seam.install(attention)
                self._numbers[attention] = number
            if self.anyone("middle"):
                self.flow.middles[number] = Middle(self, number)
                undo.extend(self.flow.middles[number].hooks())
            enter = hooks.numbered(self.flow.enter, number)
            undo.append(layer.register_forward_pre_hook(enter, with_kwargs=True))
            undo.append(layer.register_forward_hook(hooks.after(self.flow.leave, number)))
            if self.anyone("hidden") and (projection := model.mlp_output(number)) is not None:
                units = hooks.hidden(self, number)
                undo.append(projection.register_forward_pre_hook(units))
            if self.gradient or self.anyone("output"):
                for part, path in zip(("attention", "mlp"), family.added, strict=True):
                    added = hooks.added(self, number, part)
                    undo.append(layer.get_submodule(path).register_forward_hook(added))
        undo.append(model.decoder.norm.register_forward_pre_hook(self.flow.final))
        undo.append(model.decoder.norm.register_forward_hook(self.flow.restore_length))
        for part in (self.vision, self.edits):
            if part is not None:
                part.enter()

    def anyone(self, *events: str) -> bool:
        """Whether a capture or an ablation listens to one of these events."""
        return any(self._heard(event) for event in events)

    def _heard(self, event: str) -> bool:
        """Asked once an event: what a spec listens to does not change while it runs."""
        if event not in self._listening:
            everyone = [a for a, _ in (*self.captures, *self.ablations)]
            self._listening[event] = any(hooks.implements(one, event) for one in everyone)
        return self._listening[event]

    def finish(self) -> None:
        """Let every ablation prove that it fired, and every vision layer that it was reached.

        Raises:
            ProbeError: one that changed nothing; a stage of a recipe may find nothing to do on a
                clip where another stage does.
        """
        if self.vision is not None:
            self.vision.finish()
        idle: dict[str, ProbeError] = {}
        fired: set[str] = set()
        for ablation, state in self.ablations:
            stem = str(ablation).rpartition("[")[0] or str(ablation)
            try:
                ablation.finish(self, state)
                fired.add(stem)
            except ProbeError as error:
                if "did not fire" not in str(error):
                    raise
                idle.setdefault(stem, error)
        for stem, error in idle.items():
            if stem not in fired:
                raise error

    # -- events ----------------------------------------------------------------------------

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if seam.current.get() is not self:
            raise ProbeError(f"{self.model.name}: in use by another run; load it once a run")
        self.meter.turn(self.present)
        kwargs = kwargs if self.stored is None else self.stored.begin(kwargs)
        return args, self.flow.begin(kwargs)

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

    def tell(self, event: str, *what: Any) -> None:
        """Tell every capture of an event; tensors are outside the graph of gradients."""
        if self.gradient:
            what = tuple(w.detach() if isinstance(w, Tensor) else w for w in what)
        with torch.no_grad():
            for capture, state in self.captures:
                getattr(capture, event)(self, state, *what)
            if event in hooks.VISION_EVENTS:
                for ablation, state in self.ablations:
                    getattr(ablation, event)(self, state, *what)

    def change(self, event: str, y: Tensor, *where: Any) -> Tensor:
        """What ablations make of a tensor [row, ...] at an event, one after the other."""
        for ablation, state in self.ablations:
            changed = getattr(ablation, event)(self, state, *where, y)
            y = y if changed is None else changed.to(y)
        return y

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
