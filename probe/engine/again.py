"""Again: ablations of one example one after the other, each chosen by what came before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from probe.ablate.base import Ablation
from probe.ablate.compose import in_order
from probe.engine.forward import as_list, run
from probe.engine.sweep import begins, resumed, untouched

if TYPE_CHECKING:
    from probe.engine.result import Run
    from probe.engine.reuse import Clean
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel


class Again:
    """What a sweep shares between its rows, kept for rows that are not known beforehand.

    The untouched run is made once, and its stream kept where the given layers begin; `run` goes on
    from there.

    Args:
        model, x: what runs on what.
        layers: first layers that the ablations to come change. Others run from the start.
    """

    def __init__(self, model: VideoModel, x: Example, layers: Sequence[int] = (0,)) -> None:
        self.model, self.x = model, x
        self._clean: Clean | None = untouched(model, x, set(layers), False)

    def run(self, ablations: Any) -> Run:
        """A Run equal to `model.run(x, ablate=...)` to rounding."""
        listed = in_order(as_list(ablations, Ablation))
        session, layer, _ = begins(self.model, self.x, listed)
        clean = self._clean
        if session is None or clean is None or layer not in clean.entering:
            return run(self.model, self.x, (), listed)
        return resumed(self.model, self.x, session, listed, clean, layer, 0, {})
