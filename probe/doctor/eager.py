"""Dense attention maps that transformers' own eager function gives, on the same weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor

from probe.doctor.subject import quiet
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel


@contextmanager
def eager(model: VideoModel) -> Iterator[None]:
    """The decoder and its layers use eager attention; their own configs are put back after it.

    The config of the decoder, or of a module around it, decides which mask is made, so that these
    are exchanged too.
    """
    path = model.family.decoder.split(".")
    around = [model.hf.get_submodule(".".join(path[:depth])) for depth in range(len(path))]
    inside = [layer.get_submodule(model.family.attention) for layer in model.layers]
    text = _eager(model.decoder.config)
    own = [(module, module.config) for module in (*around, model.decoder, *inside)]
    try:
        for module, config in own:
            swapped = _eager(config)
            for name, value in vars(config).items():
                if value is model.decoder.config:
                    setattr(swapped, name, text)
            module.config = swapped
        yield
    finally:
        for module, config in own:
            module.config = config


def _eager(config: Any) -> Any:
    swapped = copy.copy(config)
    # The public setter would also write to sub-configs, which are shared.
    swapped._attn_implementation_internal = "eager"
    return swapped


def eager_maps(model: VideoModel, x: Example, see: Callable[[int, Tensor], None]) -> None:
    """Call `see(layer, weights [head, query, key])` for each layer of one eager pass.

    Raises:
        ProbeError: attention modules that give no weights.
    """

    def hook(layer: int) -> Any:
        def read(module: Any, args: tuple, output: Any) -> None:
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            if weights is None:
                raise ProbeError(f"layer {layer} gives no attention weights with eager attention")
            see(layer, weights[0])

        return read

    handles = [
        layer.get_submodule(model.family.attention).register_forward_hook(hook(number))
        for number, layer in enumerate(model.layers)
    ]
    try:
        with eager(model), quiet(model.hf):
            model.hf(**x.inputs, use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
