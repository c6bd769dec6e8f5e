"""What a run will cost, stated before it runs: from a shape, token counts and ablations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probe.engine.cost_counts import (
    CONVENTIONS,
    generation_macs,
    kv_bytes,
    prefill_macs,
    tower_macs,
)
from probe.engine.cost_lengths import Lengths, lengths_of
from probe.engine.cost_shape import Shape
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

    from probe.models.encode import Example
    from probe.models.video_model import VideoModel


@dataclass(frozen=True)
class Prediction:
    """Cost of a prompt, and of decoding after it, with and without ablations.

    Attributes:
        shape: of the model.
        lengths, full: token counts per layer, with the ablations and without.
    """

    shape: Shape
    lengths: Lengths
    full: Lengths

    def macs(self, convention: str = "true") -> int:
        """Multiply-accumulates of the prompt; `probe.cost.CONVENTIONS` are the ways to count."""
        one = self.lengths
        return prefill_macs(self.shape, one.rows, convention, one.patches, one.thin)

    def macs_full(self, convention: str = "true") -> int:
        """The same without the ablations."""
        one = self.full
        return prefill_macs(self.shape, one.rows, convention, one.patches, one.thin)

    def ratio(self, convention: str = "true") -> float:
        """Part of the multiply-accumulates that is left."""
        return self.macs(convention) / self.macs_full(convention)

    def decode(self, tokens: int = 1) -> tuple[int, int]:
        """True multiply-accumulates of that many steps after the prompt: with and without."""
        with_, without = (
            generation_macs(self.shape, one.kv, tokens) for one in (self.lengths, self.full)
        )
        return with_, without

    def kv_bytes(self, itemsize: int = 2) -> tuple[int, int]:
        """Bytes of the cache after the prompt: with and without.

        Args:
            itemsize: bytes of a number; 2 in bfloat16.
        """
        with_, without = (
            kv_bytes(self.shape, one.kv, itemsize) for one in (self.lengths, self.full)
        )
        return with_, without

    def to_frame(self) -> pd.DataFrame:
        """One row a quantity: quantity, convention, value, unablated, ratio."""
        import pandas as pd

        rows: list[tuple[Any, ...]] = []
        for name in CONVENTIONS:
            if name != "with vision" or self._tower_known:
                rows.append(("prefill MACs", name, self.macs(name), self.macs_full(name)))
        if self._tower_known and self.shape.tower is not None:
            pair = (tower_macs(self.shape.tower, one.patches or ()) for one in self._both)
            rows.append(("vision tower MACs", "true", *pair))
        rows.append(("MACs of a decode step", "true", *self.decode()))
        rows.append(("KV bytes, 16 bit", "", *self.kv_bytes()))
        rows.append(("prompt rows, sum over layers", "", *(sum(one.rows) for one in self._both)))
        frame = pd.DataFrame(rows, columns=["quantity", "convention", "value", "unablated"])
        frame["ratio"] = frame["value"] / frame["unablated"].where(frame["unablated"] > 0)
        return frame

    @property
    def _both(self) -> tuple[Lengths, Lengths]:
        return self.lengths, self.full

    @property
    def _tower_known(self) -> bool:
        return self.shape.tower is not None and all(one.patches is not None for one in self._both)


def predict(
    model: VideoModel | Shape | Any,
    x: Example | tuple[int | Sequence[int], int] | Lengths,
    ablate: Any = (),
) -> Prediction:
    """Cost of a run before it runs, and without weights where the model is a `Shape` or a config.

    Args:
        model: a `VideoModel`, a `Shape`, or a transformers config.
        x: an example; or (visual tokens, other tokens), the visual ones as a number or as numbers
            per frame; or `Lengths`.
        ablate: ablations, a recipe, or their text.

    Raises:
        ProbeError: an ablation whose token count depends on the data, or one that does not fit.
    """
    config = getattr(getattr(model, "hf", None), "config", model)
    shape = model if isinstance(model, Shape) else Shape.of(config)
    full, ablations = _lengths(shape, x), _ablations(ablate)
    found = _lengths(shape, _prepared(model, x, ablations))
    for one in ablations:
        if one.listens("prepare"):
            continue  # what it does to the prompt is in the prompt already
        after = one.effect(found)
        if after is None:
            raise ProbeError(
                f"{one}: how many tokens it keeps depends on the data; run it and read run.cost"
            )
        found = after
    return Prediction(shape, found, full)


def _prepared(model: Any, x: Any, ablations: list) -> Any:
    from probe.ablate.compose import prepared

    first = next((one for one in ablations if one.listens("prepare")), None)
    if first is None:
        return x
    if not hasattr(model, "hf") or not hasattr(x, "layout"):
        raise ProbeError(f"{first}: it changes the prompt itself; give the model and an example")
    return prepared(model, x, ablations)


def _lengths(shape: Shape, x: Any) -> Lengths:
    if isinstance(x, Lengths):
        return x
    if hasattr(x, "layout"):
        return lengths_of(x, shape)
    if not isinstance(x, tuple) or len(x) != 2:
        raise ProbeError("predict: give an example, or (visual tokens, other tokens)")
    visual, text = x
    return Lengths.full(shape.layers, [visual] if isinstance(visual, int) else visual, text)


def _ablations(ablate: Any) -> list:
    from probe.ablate import Ablation, parse
    from probe.ablate.compose import in_order
    from probe.engine.forward import as_list

    return in_order(as_list(parse(ablate) if isinstance(ablate, str) else ablate, Ablation))
