"""Rotary tables of a run and of any position ids, and vectors rotated and as they were before."""

from __future__ import annotations

import copy
import inspect
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.models.anatomy import Anatomy

Tables = tuple[Tensor, Tensor]


def tables(model: Anatomy, x: Tensor, ids: Tensor, layer: int, ntk: float = 1.0) -> Tables:
    """Rotary tables of any position ids, by the family's own rotary module.

    Args:
        model: whose module; it stays as it is. A table that grows with the sequence (dynamic NTK,
            LongRoPE) has the frequencies of the last forward, whatever these ids are.
        x: any tensor of the dtype and on the device that the tables shall have.
        ids: [1, row], or [3, 1, row] for rotary positions with three axes; fractions are allowed.
        layer: number of the layer, which matters where layers differ in kind.
        ntk: frequencies as of a base that is ntk^(d / (d - 2)) times larger, d rotated channels.

    Returns:
        (cos, sin), each [1, row, channel].

    Raises:
        ProbeError: a decoder without rotary positions, ids of another number of axes.
    """
    module, more = rotary_module(model, layer)
    if ids.dim() == 3 and not has_axes(model):
        raise ProbeError(f"{model.name}: its rotary positions have one axis, not three")
    with torch.no_grad():
        cos, sin = _fixed(module, ntk).forward(x, ids.to(x.device), **more)
    return cos, sin


def rotary_module(model: Anatomy, layer: int) -> tuple[nn.Module, dict[str, Any]]:
    """The module that makes a layer's tables, and what it is told besides ids.

    Raises:
        ProbeError: a decoder without rotary positions.
    """
    decoder = model.decoder
    module: Any = getattr(decoder, "rotary_emb", None)
    kinds = getattr(decoder, "rope_types", None)  # Molmo2: some layers are without scaling
    if kinds is not None and kinds[layer] == "unscaled":
        module = decoder.rotary_emb_unscaled
    if module is None:
        raise ProbeError(f"{model.name}: the decoder has no rotary positions")
    if "layer_type" in inspect.signature(module.forward).parameters:
        return module, {"layer_type": decoder.config.layer_types[layer]}
    return module, {}


def _fixed(module: nn.Module, ntk: float) -> Any:
    """A copy of a rotary module, with buffers of its own and frequencies that do not follow ids."""
    one: Any = copy.copy(module)
    one._buffers = {name: value.clone() for name, value in module.named_buffers(recurse=False)}
    kind = one.rope_type
    one.rope_type = dict.fromkeys(kind, "default") if isinstance(kind, dict) else "default"
    for name, value in one._buffers.items():
        if ntk != 1 and name.endswith("inv_freq"):
            pair = torch.arange(len(value), device=value.device)
            one._buffers[name] = value * ntk ** (-pair / max(1, len(value) - 1))
    return one


def has_axes(model: Anatomy) -> bool:
    """Rotary positions have three axes: time, row and column."""
    return hasattr(getattr(model.decoder, "rotary_emb", None), "mrope_section")


class Rotary:
    """Tables of all positions so far: keys of past steps are unrotated too.

    Most families share one table among all layers; where layers differ in kind, each kind has its
    own.
    """

    def __init__(self) -> None:
        self._tables: dict[int, list[Tables]] = {}

    def grow(self, layer: int, tables: Tables | None, first: bool) -> None:
        """Add a layer's tables (cos, sin) [1, row, channel] of a forward; `first` starts anew."""
        if tables is None:
            return
        if first or layer not in self._tables:
            self._tables[layer] = []
        self._tables[layer].append(tables)

    def of(self, layer: int) -> Tables:
        """A layer's tables (cos, sin) [row, channel] of all positions."""
        if layer not in self._tables:
            raise ProbeError(f"layer {layer} gets no rotary tables; there are no rotary positions")
        if len(self._tables[layer]) > 1:
            cos, sin = (
                torch.cat(parts, dim=-2) for parts in zip(*self._tables[layer], strict=True)
            )
            self._tables[layer] = [(cos, sin)]
        cos, sin = self._tables[layer][0]
        return cos[0], sin[0]

    def remove(self, layer: int, module: nn.Module, x: Tensor, positions: np.ndarray) -> Tensor:
        """Vectors [head, n, channel] before rotation: the family's own rotary with -sin.

        Dividing by cos^2 + sin^2 undoes a scale in the tables (attention temperature of YaRN);
        channels that a partial rotary leaves alone stay as they are.
        """
        known = self.of(layer)
        index = torch.as_tensor(positions, device=known[0].device)
        cos, sin = (table[index][None].float().to(x.device) for table in known)
        raw = _rotated(module, x, cos, -sin)
        scale = (cos.square() + sin.square()).mean(-1)[0, :, None]
        channels = min(cos.shape[-1], raw.shape[-1])
        return torch.cat([raw[..., :channels] / scale, raw[..., channels:]], dim=-1)


def rotated(model: Anatomy, layer: int, module: nn.Module, x: Tensor, ids: Tensor) -> Tensor:
    """Vectors [head, n, channel] from before rotation, rotated to position ids [1, n] or
    [3, 1, n].
    """
    return _rotated(module, x, *tables(model, x.float(), ids, layer))


def _rotated(module: nn.Module, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    rotate = sys.modules[type(module).__module__].apply_rotary_pos_emb
    return rotate(x[None].float(), x[None].float(), cos, sin)[0][0]
