"""Finding the parts of a vision tower: layers, attention modules, pooling head, projector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.models.video_model import VideoModel


@dataclass(frozen=True, eq=False)
class Tower:
    """A vision tower taken apart.

    Attributes:
        module: the tower.
        layers: its transformer layers, first to last.
        attentions: its attention modules that use transformers' attention interface, and the
            layer each is in.
        pooling: pooling heads: `nn.MultiheadAttention` with a learned query.
        outside: dotted paths of attention modules that are in no layer; they are not read.
        projector: what carries features over to the decoder; None where the family names none.
        convolution: the patch convolution of a tower that takes frames as a batch; None where
            patches are cut up before, or in three dimensions.
    """

    module: nn.Module
    layers: tuple[nn.Module, ...]
    attentions: dict[nn.Module, int]
    pooling: tuple[nn.Module, ...]
    outside: tuple[str, ...]
    projector: nn.Module | None
    convolution: nn.Conv2d | None

    @property
    def heads(self) -> int:
        """Number of attention heads, as the tower's config says; 1 where it does not."""
        config = getattr(self.module, "config", None)
        names = ("num_attention_heads", "num_heads")
        return next((getattr(config, n) for n in names if hasattr(config, n)), 1)

    @property
    def width(self) -> int:
        """Channels of the residual stream, as the parameters of a layer say."""
        return min(p.shape[-1] for p in self.layers[0].parameters() if p.dim() == 1)


def vision_tower(model: VideoModel) -> Tower:
    """The tower of a model, found from the family's paths.

    Raises:
        ProbeError: a path that leads nowhere, a tower without layers, or several attention modules
            in one layer.
    """
    family, hf = model.family, model.hf
    if family.vision is None:
        raise ProbeError(f"{model.name}: {family.title} has no vision tower to read")
    module = _at(hf, family.vision, model.name, "vision")
    projector = family.projector and _at(hf, family.projector, model.name, "projector")
    found = {path: part for path, part in module.named_modules() if _is_attention(part)}
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList | nn.Sequential)]
    # A list of layers has attention in each; without any attention to go by, the longest it is.
    with_attention = [
        part for part in lists if all(any(map(_is_attention, item.modules())) for item in part)
    ]
    layers = max(with_attention if found else lists, key=len, default=())
    if not len(layers):
        raise ProbeError(
            f"{model.name}: no list of layers in its vision tower '{family.vision}'; "
            "Family(vision=...) must name the module that has them"
        )
    numbers = {part: n for n, layer in enumerate(layers) for part in layer.modules()}
    attentions = {part: numbers[part] for part in found.values() if part in numbers}
    if len(set(attentions.values())) < len(attentions):
        raise ProbeError(
            f"{model.name}: several attention modules in one layer of its vision tower "
            f"'{family.vision}'; captures of the tower read one a layer"
        )
    heads = [p for p in module.modules() if isinstance(p, nn.MultiheadAttention)]
    convolutions = (p for p in module.modules() if isinstance(p, nn.Conv2d))
    return Tower(
        module=module,
        layers=tuple(layers),
        attentions=attentions,
        pooling=tuple(p for p in heads if p not in numbers),
        outside=tuple(path for path, part in found.items() if part not in numbers),
        projector=projector or None,
        convolution=next((p for p in convolutions if p.kernel_size == p.stride), None),
    )


def _at(hf: nn.Module, path: str, name: str, what: str) -> nn.Module:
    try:
        return hf.get_submodule(path)
    except AttributeError:
        raise ProbeError(
            f"{name}: no module '{path}' in {type(hf).__name__}; Family({what}=...) must name it"
        ) from None


def _is_attention(module: nn.Module) -> bool:
    """Modules that call the interface carry both: it picks the function by the config, and
    `is_causal` is its only way to know that vision is not causal.
    """
    return hasattr(module, "is_causal") and hasattr(module, "config")
