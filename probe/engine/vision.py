"""The vision tower of a run: hooks and the seam on its layers, and the events they tell.

With flash attention, a tower that packs frames into one sequence is called block by block while
its attention is read, and not once for all: the same attention, but perhaps not bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from probe.ablate.base import Ablation
from probe.capture.base import Capture
from probe.engine import seam
from probe.engine.hooks import VISION_EVENTS, implements
from probe.engine.vision_blocks import Block, pooling_call, vision_calls
from probe.engine.vision_order import Order
from probe.engine.vision_parts import Tower, vision_tower
from probe.engine.vision_tokens import VisionTokens, frame_labels
from probe.engine.vision_watch import Watch
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.engine.session import Session


class VisionHooks:
    """What a session does inside the vision tower, for captures that listen there.

    Every forward of the tower is told layer by layer, its tokens in the order of `tokens`. The
    tower runs inside the model's own forward: once for clips, once more for images.

    Attributes:
        tower: its layers, attention modules and width.
        wanted: statistics of attention that captures ask for in `start`: "received", "entropy",
            "cls", "frames", or "auto" for "cls" where there is one and else "received".
        forwards: the tokens of each forward of the tower.
        features: by "before" and "after", the tokens of each call of the projector.
        reached: layers whose attention was seen.
    """

    def __init__(self, session: Session, captures: Sequence[Capture | Ablation]) -> None:
        if not session.layout.visuals:
            raise ProbeError(
                f"{session.model.name}: this prompt has no clip and no image, so the vision tower "
                "does not run; leave the vision captures out"
            )
        self.session = session
        self.tower: Tower = vision_tower(session.model)
        self.wanted: set[str] = set()
        self.forwards: list[VisionTokens] = []
        self.features: dict[str, list[VisionTokens]] = {"before": [], "after": []}
        self.reached: set[int] = set()
        self._reads = {e for e in VISION_EVENTS for capture in captures if implements(capture, e)}
        self._own: dict[nn.Module, Any] = {}
        self._undo: list[Any] = []
        self._blocks: list[Block] = []
        self._watch: Watch | None = None
        self._order = Order(self.tower)

    @property
    def tokens(self) -> VisionTokens:
        """The tokens of the forward that is on."""
        return self.forwards[-1]

    @property
    def labels(self) -> list[str]:
        """Label of each frame of all forwards, as the layout labels it."""
        return self.labels_of(self.forwards)

    def labels_of(self, forwards: Sequence[VisionTokens]) -> list[str]:
        """The same for the forwards of the projector."""
        return frame_labels(self.session.layout, [tokens.frames for tokens in forwards])

    # -- in and out ------------------------------------------------------------------------

    def enter(self) -> None:
        """Install the seam and the hooks."""
        tower, undo = self.tower, self._undo
        undo += self._order.hooks()
        reading = "vision_attention" in self._reads
        for number, layer in enumerate(tower.layers):
            undo.append(layer.register_forward_pre_hook(self._entered(number), with_kwargs=True))
            if reading and not tower.attentions:
                undo.append(layer.register_forward_hook(self._unwatch, always_call=True))
                undo.append(layer.register_forward_hook(self._attended(number)))
        undo.append(tower.layers[-1].register_forward_hook(self._left))
        if reading:
            for module, number in tower.attentions.items():
                self._own[module] = seam.install(module)
                undo.append(module.register_forward_hook(self._attended(number)))
            for module in tower.pooling:
                undo.append(module.register_forward_hook(self._pooled, with_kwargs=True))
        if "vision_features" in self._reads and tower.projector is not None:
            undo.append(tower.projector.register_forward_hook(self._projected, with_kwargs=True))

    def leave(self) -> None:
        """Put everything back."""
        for handle in self._undo:
            handle.remove()
        for module, config in self._own.items():
            module.config = config
        self._undo, self._own, self._blocks = [], {}, []
        self._order.forget()

    def finish(self) -> None:
        """Prove that everything was seen.

        Raises:
            ProbeError: the tower did not run, or the attention of a layer was never seen.
        """
        name = self.session.model.name
        if not self.forwards:
            raise ProbeError(
                f"{name}: its vision tower '{self.session.model.family.vision}' did not run on "
                "this prompt; some families have another one for images"
            )
        missed = sorted(set(range(len(self.tower.layers))) - self.reached)
        if "vision_attention" in self._reads and missed:
            paths = {module: path for path, module in self.session.model.hf.named_modules()}
            raise ProbeError(
                f"{name}: the attention of {paths[self.tower.layers[missed[0]]]} never reached "
                "transformers' attention function nor torch's, so it could not be read; its "
                "class must call ALL_ATTENTION_FUNCTIONS"
            )

    def owns(self, module: nn.Module) -> bool:
        """True for an attention module of the tower."""
        return module in self._own

    # -- events ----------------------------------------------------------------------------

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        kwargs: dict,
    ) -> tuple[Tensor, Tensor | None]:
        """The module's own attention; what it read is kept until its forward ends."""
        own = seam.implementation(module, self._own[module]._attn_implementation)
        result = own(module, query, key, value, mask, **kwargs)
        self._seen(query, key, mask, kwargs.get("scaling") or query.shape[-1] ** -0.5)
        return result

    def _seen(self, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float) -> None:
        self._blocks.append(Block(query, key, mask if isinstance(mask, Tensor) else None, scaling))

    def _entered(self, number: int) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            x = args[0] if args else kwargs["hidden_states"]
            if number == 0:
                self.forwards.append(self._order.tokens(x, kwargs))
            self._blocks = []
            self._residual(number, x)
            if "vision_attention" in self._reads and not self.tower.attentions:
                self._watch = Watch(self._seen)
                self._watch.__enter__()

        return hook

    def _unwatch(self, module: nn.Module, args: tuple, output: Any) -> None:
        """Also called where the layer raised."""
        if self._watch is not None:
            self._watch.__exit__(None, None, None)
            self._watch = None

    def _left(self, module: nn.Module, args: tuple, output: Any) -> None:
        x = output[0] if isinstance(output, tuple) else output
        self._residual(len(self.tower.layers), x)

    def _residual(self, number: int, x: Tensor) -> None:
        if "vision_residual" in self._reads:
            x = _sorted(x.flatten(0, -2), self.tokens)
            self.session.tell("vision_residual", number, x)

    def _attended(self, number: int) -> Any:
        """An attention module is done: its blocks, those of equal length together."""

        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            blocks, self._blocks = self._blocks, []
            if not blocks:
                return
            self.reached.add(number)
            alive = None if self.session.edits is None else self.session.edits.alive
            for call in vision_calls(number, module, blocks, self.tokens, self.wanted, alive):
                self.session.tell("vision_attention", call)

        return hook

    def _pooled(self, module: Any, args: tuple, kwargs: dict, output: Any) -> None:
        query, key = args[:2] if len(args) > 1 else (kwargs["query"], kwargs["key"])
        number = len(self.tower.layers)
        self.session.tell("vision_attention", pooling_call(number, module, query, key, self.tokens))

    def _projected(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        if len(self.features["before"]) == len(self.forwards):
            return  # features of another tower, as of images in Video-LLaVA
        cells = [visual.cells for visual in self.session.layout.visuals if visual.cells]
        given = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        for place, x in (("before", given), ("after", output)):
            x = (x if isinstance(x, Tensor) else x[0]).flatten(0, -2)
            tokens = self._order.merged(self.tokens, len(x), cells)
            self.features[place].append(tokens)
            self.session.tell("vision_features", place, _sorted(x, tokens))


def _sorted(x: Tensor, tokens: VisionTokens) -> Tensor:
    return x if tokens.plain else x[torch.as_tensor(tokens.order, device=x.device)]
