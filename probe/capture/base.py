"""What a capture is: a frozen description, and the events of a run it listens to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from probe.spec import Spec

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session
    from probe.engine.vision_call import VisionCall


@dataclass(frozen=True)
class Capture(Spec):
    """Base of all captures. Implement the events you need, and `finish`.

    A capture is data; what it gathers during one run lives in `state`, a dict of that run's own.
    Every event gets the rows of one forward pass: the whole prompt in `run` and at the first
    step of `generate`, one token at each later step. `session.positions[layer]` says which
    layout positions the rows are.
    """

    needs_gradient: ClassVar[bool] = False

    def start(self, session: Session) -> dict[str, Any]:
        """Check arguments against the model and the layout; return this run's state."""
        return {}

    def embedding(self, session: Session, state: dict, x: Tensor) -> None:
        """The merged embeddings [row, channel] that enter layer 0."""

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        """The residual stream [row, channel] that enters a layer."""

    def attention(self, session: Session, state: dict, call: AttentionCall) -> None:
        """One attention layer has run, ablations applied."""

    def output(self, session: Session, state: dict, layer: int, part: str, y: Tensor) -> None:
        """What "attention", "mlp" or "deepstack" of a layer adds to the residual stream
        [row, channel].
        """

    def final(self, session: Session, state: dict, x: Tensor) -> None:
        """The residual stream [row, channel] before the last norm."""

    def vision_attention(self, session: Session, state: dict, call: VisionCall) -> None:
        """An attention layer of the vision tower has run."""

    def vision_residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        """The tower's residual stream [token, channel] that enters a layer; the number of layers
        stands for what leaves the last one. Rows are `session.vision.tokens`.
        """

    def vision_features(self, session: Session, state: dict, place: str, x: Tensor) -> None:
        """Features [token, channel] "before" and "after" the projector, frame by frame."""

    def trace(self, session: Session, state: dict, site: str, layer: int, x: Tensor) -> None:
        """With `needs_gradient`: a tensor [1, row, ...] that the model goes on with, in its graph.

        Sites: "residual" (enters the layer; in layer 0 the merged embeddings), "attention" and
        "mlp" (what is added), "head" ([1, row, head, channel], before the output projection).
        """

    def backward(self, session: Session, state: dict, logits: Tensor) -> None:
        """With `needs_gradient`: the logits [readout, vocab] of the run, with their graph."""

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        """The result: named arrays; the first one has the capture's own name."""
        raise NotImplementedError(f"{self.kind} has no finish()")

    def memory(self, session: Session) -> int:
        """Bytes that the result and the state will take, stated before anything runs."""
        return 0
