"""How many tokens are in each layer, stated before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from probe.engine.cost_shape import Shape, TowerShape
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.models.encode import Example

Patches = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Lengths:
    """Token counts of a prompt's forward pass, and of the cache that it leaves.

    Attributes:
        visual: per layer, the visual tokens whose rows go through it.
        cached: per layer, the visual tokens whose keys stay in its cache for decoding.
        text: all other tokens of the prompt, which are in every layer.
        frames: visual tokens of each frame, as they enter layer 0; None where that depends on
            data, or once tokens are chosen among all frames.
        patches: grids of patches that the vision tower works on, each (frames, rows, columns);
            None where they are not known.
        middles: (layer, visual tokens that go through its MLP) of layers that lose some between
            attention and MLP.
    """

    visual: tuple[int, ...]
    cached: tuple[int, ...]
    text: int = 0
    frames: tuple[int, ...] | None = None
    patches: Patches | None = None
    middles: tuple[tuple[int, int], ...] = ()

    @classmethod
    def full(
        cls,
        layers: int,
        frames: Sequence[int],
        text: int = 0,
        patches: Patches | None = None,
    ) -> Lengths:
        """Every token in every layer.

        Args:
            layers: of the decoder.
            frames: visual tokens of each frame.
            text: other tokens.
            patches: of the vision tower.
        """
        visual = (sum(frames),) * layers
        return cls(visual, visual, text, tuple(frames), patches)

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows of the prompt's forward pass per layer."""
        return tuple(visual + self.text for visual in self.visual)

    @property
    def thin(self) -> tuple[int, ...]:
        """Rows that go through the MLP of each layer."""
        fewer = dict(self.middles)
        through = (min(n, fewer.get(layer, n)) for layer, n in enumerate(self.visual))
        return tuple(visual + self.text for visual in through)

    @property
    def kv(self) -> tuple[int, ...]:
        """Keys in the cache of each layer after the prompt."""
        return tuple(cached + self.text for cached in self.cached)

    @property
    def mean_visual(self) -> float:
        """Visual tokens per layer, on average over layers."""
        return sum(self.visual) / len(self.visual)

    def entering(self, layer: int) -> int:
        """Visual tokens that enter a layer: where some pass it by, all that came to it."""
        return max(self.visual[self._number(layer) :])

    def after(self, layer: int, visual: int, frames: Sequence[int] | None = None) -> Lengths:
        """From a layer on only this many visual tokens.

        Args:
            layer: the first layer that has fewer.
            visual: how many are left.
            frames: how many of each frame are left, where that is known.
        """
        layer = self._number(layer)
        return replace(
            self,
            visual=self.visual[:layer] + tuple(min(n, visual) for n in self.visual[layer:]),
            cached=self.cached[:layer] + tuple(min(n, visual) for n in self.cached[layer:]),
            frames=None if frames is None else tuple(frames),
        )

    def only(self, layer: int, visual: int) -> Lengths:
        """Only this many visual tokens go through one layer and leave a key in it; the others
        pass it by.
        """
        layer = self._number(layer)
        return replace(
            self,
            visual=(*self.visual[:layer], visual, *self.visual[layer + 1 :]),
            cached=(*self.cached[:layer], visual, *self.cached[layer + 1 :]),
        )

    def middle(self, layer: int, visual: int) -> Lengths:
        """From the MLP of a layer on only this many visual tokens; its keys are full."""
        layer = self._number(layer)
        found = replace(self, middles=(*self.middles, (layer, visual)))
        return found.after(layer + 1, visual) if layer + 1 < len(self.visual) else found

    def retroactive(self, visual: int, layers: Sequence[int] | None = None) -> Lengths:
        """The cache of these layers (all by default) is cut to this many visual tokens after the
        prompt.
        """
        where = range(len(self.cached)) if layers is None else layers
        cached = [min(n, visual) if k in where else n for k, n in enumerate(self.cached)]
        return replace(self, cached=tuple(cached))

    def _number(self, layer: int) -> int:
        """A layer counted from 0; negative ones count from the end."""
        layers = len(self.visual)
        if not -layers <= layer < layers:
            raise ProbeError(f"layer {layer} does not exist; there are layers 0 to {layers - 1}")
        return layer % layers


def lengths(stages: Sequence[tuple[int, int]], layers: int, visual: int, text: int = 0) -> Lengths:
    """Token counts of a list of stages, each (first layer, visual tokens from it on).

    Args:
        stages: for instance [(0, 1568), (18, 784)]; layers are 0-based and rise, counts fall.
        layers: of the decoder.
        visual: visual tokens before any stage.
        text: other tokens.

    Raises:
        ProbeError: a layer that does not exist, layers that do not rise, counts that rise.
    """
    found, last, left = Lengths.full(layers, [visual], text), -1, visual
    for layer, kept in stages:
        if not last < layer < layers:
            raise ProbeError(
                f"lengths: stage at layer {layer}; stages rise from layer 0 to {layers - 1}"
            )
        if not 0 <= kept <= left:
            raise ProbeError(f"lengths: {kept} tokens from layer {layer} on; {left} are left there")
        found, last, left = found.after(layer, kept), layer, kept
    return found


def lengths_of(x: Example, shape: Shape) -> Lengths:
    """Token counts of an example without any ablation.

    Args:
        x: from `model.encode`.
        shape: of the model.
    """
    layout, prompt = x.layout, x.inputs["input_ids"].shape[1]
    video = layout.role[:prompt] == "video"
    groups = layout.group[:prompt][video]
    counts = [int((groups == number).sum()) for number in range(len(layout.frames))]
    text = prompt - int(video.sum())
    return Lengths.full(shape.layers, counts, text, patches_of(x.inputs, shape.tower))


def patches_of(inputs: Mapping[str, Any], tower: TowerShape | None) -> Patches | None:
    """Grids of patches (frames, rows, columns) of the clips and images in a model's inputs; None
    where neither they nor the tower say them.
    """
    if not any(name.startswith("pixel_values") for name in inputs):
        return ()
    grids = [grid for name in inputs if name.endswith("_grid_thw") for grid in inputs[name]]
    if grids:
        return tuple((int(t), int(h), int(w)) for t, h, w in grids)
    if tower is None:
        return None
    found = []
    for name, pixels in inputs.items():
        if name.startswith("pixel_values") and pixels.dim() > 3:
            high, wide = (n // p for n, p in zip(pixels.shape[-2:], tower.patch, strict=True))
            found.append((pixels[..., 0, 0, 0].numel(), high, wide))
        elif name.startswith("pixel_values"):  # cut up into patches: [frame, patch, value]
            found.append((*pixels.shape[:2], 1))
    return tuple(found)
