"""What an ablation is: a frozen description, where it acts, and proof that it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from probe.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from probe.ablate.reduction.weights import Weights
    from probe.engine.call import AttentionCall
    from probe.engine.cost_lengths import Lengths
    from probe.engine.session import Session
    from probe.engine.vision_call import VisionCall
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel

# Where ablations act, first to last in a forward pass; a list of them is applied in this order.
PLACES = (
    "frames",
    "vision encoder",
    "rotary positions",
    "tokens before the language model",
    "hidden states",
    "residual stream",
    "attention mask",
    "heads and MLPs",
    "KV cache",
    "logits",
)


@dataclass(frozen=True)
class Ablation(Spec):
    """Base of all ablations. Implement `start` and the events of the place it acts on.

    `start` checks the arguments against the model and the layout before anything runs, and
    returns None where they are neutral: the run is then bit-identical to the untouched one.
    `finish` raises when a non-neutral ablation changed nothing it claims to change.
    """

    place: ClassVar[str] = "attention mask"
    source: ClassVar[str] = ""

    @property
    def acts(self) -> str:
        """Where this one acts, one of `PLACES`."""
        return self.place

    def contradicts(self, other: Ablation) -> str | None:
        """Why it cannot be in one run with another; None where it can."""

    @property
    def at_decode(self) -> bool:
        """Whether it acts after the prompt, so that `run` feeds an answer token by token."""
        return self.listens("evict")

    def effect(self, lengths: Lengths) -> Lengths | None:
        """Tokens per layer with this ablation, from those without it; None where it depends on
        data.
        """
        return lengths

    def listens(self, event: str) -> bool:
        """Whether it has something to do at an event."""
        return getattr(type(self), event) is not getattr(Ablation, event)

    def prepare(self, model: VideoModel, x: Example) -> Example:
        """Before anything runs: the example to run in place of `x`; `x` itself where neutral."""
        return x

    def start(self, session: Session) -> dict[str, Any] | None:
        """Check arguments; return this run's state, or None for a neutral ablation."""
        return {}

    def ids(self, session: Session, state: dict, rows: np.ndarray, ids: Tensor) -> Tensor | None:
        """Position ids [1, row], or [3, 1, row], of a forward's rows (layout positions); changed
        ones take their place and may be fractions.
        """

    def tables(
        self, session: Session, state: dict, layer: int, tables: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor] | None:
        """Rotary tables (cos, sin) of a forward's rows, as they enter a layer."""

    def reduce(self, session: Session, state: dict, layer: int, x: Tensor) -> Weights | None:
        """Prefill only: fewer rows go on into `layer`: weights over the rows that entered it.

        `x` is the residual stream [row, channel]; `session.positions[layer]` says what its rows
        are. Anchors keep their layout positions.
        """

    def middle(self, session: Session, state: dict, layer: int, x: Tensor) -> Weights | None:
        """Prefill only: fewer rows between attention and MLP of `layer`, from the stream
        [row, channel] there; behind the layer they are gone.
        """

    def bypass(self, session: Session, state: dict, layer: int, x: Tensor) -> np.ndarray | None:
        """Prefill only: numbers of the rows that go through `layer`; the others pass it by in
        the residual stream and leave no key in it.
        """

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> Tensor | None:
        """The residual stream [row, channel] that enters a layer, in every forward; a changed one
        takes its place. `session.positions[layer]` says which layout positions the rows are.
        """

    def edit(self, session: Session, state: dict, call: AttentionCall) -> None:
        """Before an attention layer's output is used: cut edges, remove rotation."""

    def head_outputs(
        self, session: Session, state: dict, call: AttentionCall, y: Tensor
    ) -> Tensor | None:
        """Output of the heads [row, head, channel] before the output projection, edits applied."""

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        """One attention layer of the prefill has run, edits applied (for scores)."""

    def hidden(self, session: Session, state: dict, layer: int, h: Tensor) -> Tensor | None:
        """Hidden units of an MLP [row, unit], before its output projection."""

    def output(
        self, session: Session, state: dict, layer: int, part: str, y: Tensor
    ) -> Tensor | None:
        """What "attention" or "mlp" of a layer adds to the residual stream [row, channel]."""

    def evict(self, session: Session, state: dict) -> dict[int, np.ndarray] | None:
        """Before each forward after the prompt: by layer, the layout positions that stay in its
        cache; layers that are not named keep all.
        """

    def vision_attention(self, session: Session, state: dict, call: VisionCall) -> None:
        """An attention layer of the vision tower has run; as in captures."""

    def vision_residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        """The tower's residual stream [token, channel]; as in captures."""

    def vision_features(self, session: Session, state: dict, place: str, x: Tensor) -> None:
        """Features "before" and "after" the projector; as in captures."""

    def vision_tokens(
        self, session: Session, state: dict, place: int | str, x: Tensor
    ) -> Weights | None:
        """Fewer tokens behind a layer of the tower, or at "out", the input of the projector.

        `x` [token, channel] are the tokens that are left so far, `session.edits.tokens` all of
        them, `session.edits.alive` the numbers of those that are left (None for all). What is
        dropped here must be left out of the prompt by `reduce`.
        """

    def vision_layer(
        self, session: Session, state: dict, layer: int, before: Tensor, after: Tensor
    ) -> Tensor | None:
        """What a layer of the tower got and gave [.., token, channel]; another output, or None."""

    def affects(self, session: Session, state: dict) -> tuple[int, int]:
        """First decoder layer, and first layout position, whose numbers it can change."""
        return 0, 0

    def finish(self, session: Session, state: dict) -> None:
        """Prove that it fired.

        Raises:
            ProbeError: it changed nothing that it claims to change.
        """


# What users give: one, several, and recipes of several among them.
Ablations = Ablation | Sequence[Ablation | Sequence[Ablation]]
