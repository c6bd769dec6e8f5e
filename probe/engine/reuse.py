"""What one untouched run leaves for others: the stream that enters layers, and keys and values.

An ablation that starts at layer k leaves the layers before it as they were; one that changes only
rows from position p on leaves all earlier rows, and their keys and values, as they were.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probe.engine.deepstack import Deepstack

if TYPE_CHECKING:
    from probe.engine.session import Session


@dataclass
class Clean:
    """Of one untouched forward pass.

    Attributes:
        wanted: layers whose entering stream is kept.
        entering: by layer, the stream [1, row, channel] that entered it.
        arguments: by layer, its other arguments.
        keys, values: per layer, [1, kv_head, key, channel]; None where they were not wanted.
        deepstack: vision features that are added after early layers.
        logits: [readout, vocab].
    """

    wanted: Collection[int]
    entering: dict[int, Tensor] = field(default_factory=dict)
    arguments: dict[int, dict] = field(default_factory=dict)
    keys: list[Tensor] | None = None
    values: list[Tensor] | None = None
    deepstack: Deepstack = field(default_factory=Deepstack)
    logits: Tensor | None = None

    @cached_property
    def horizon(self) -> int:
        """First row from which on no earlier row sees a later key: 0 where attention is causal,
        behind the visual tokens where those see each other.
        """
        mask = self.arguments[max(self.arguments)].get("attention_mask")
        if not isinstance(mask, Tensor) or mask.dim() != 4:
            return 0
        seen = mask[0, 0] if mask.dtype == torch.bool else mask[0, 0] > -1e4
        ahead = seen.triu(1).any(0).nonzero()
        return int(ahead.max()) + 1 if len(ahead) else 0

    def enter(self, layer: int, x: Tensor, kwargs: dict) -> None:
        """The stream enters a layer of the untouched run."""
        if layer in self.wanted:
            self.entering[layer] = x
        left = ("hidden_states", "past_key_values", "use_cache")
        self.arguments[layer] = {k: v for k, v in kwargs.items() if k not in left}


class SuffixCache:
    """Keys and values of a clean run, in which the rows from `first` on are written anew.

    Attributes:
        first: rows before it are the clean run's.
        layers: per layer, its keys and values, as transformers' caches have them.
    """

    def __init__(self, clean: Clean, first: int) -> None:
        self.first, self.clean = first, clean
        self._own: dict[int, tuple[Tensor, Tensor]] = {}

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """What a layer's attention calls: the suffix in, everything out."""
        assert self.clean.keys is not None and self.clean.values is not None
        if layer not in self._own:
            self._own[layer] = self.clean.keys[layer].clone(), self.clean.values[layer].clone()
        key, value = self._own[layer]
        key[:, :, self.first :], value[:, :, self.first :] = keys, values
        return key, value


def resume(
    session: Session, clean: Clean, layer: int, row: int, caches: dict[int, SuffixCache]
) -> Tensor:
    """Run a session from a layer and a row on; what comes before is the clean run's.

    Args:
        session: entered; its ablations change nothing before that layer and row.
        clean: with the stream entering `layer`, and keys and values where `row` is not 0.
        layer, row: where to begin.
        caches: by first row, those of this sweep, which are used again.

    Returns:
        Logits [readout, vocab].
    """
    model, flow = session.model, session.flow
    flow.resume(clean, layer, row)
    if layer == model.n_layers:
        assert clean.logits is not None
        return clean.logits
    x = clean.entering[layer][:, row:]
    for number in range(layer, model.n_layers):
        kwargs = clean.arguments[number]
        if row:
            kwargs = _suffix(kwargs, row, len(session.prompt), x)
            kwargs["past_key_values"] = caches.setdefault(row, SuffixCache(clean, row))
        out = model.layers[number](x, **kwargs)
        x = out[0] if isinstance(out, tuple) else out
    x = model.decoder.norm(x)
    wanted = torch.as_tensor(session.example.layout.readout - row, device=x.device)
    return model.head(x[0, wanted])


def _suffix(kwargs: dict, row: int, length: int, x: Tensor) -> dict:
    """A layer's arguments for the rows from `row` on, over all keys."""
    kwargs = dict(kwargs)
    tables = kwargs.get("position_embeddings")
    if tables is not None:
        kwargs["position_embeddings"] = tuple(table[..., row:, :] for table in tables)
    if isinstance(kwargs.get("position_ids"), Tensor):
        kwargs["position_ids"] = kwargs["position_ids"][..., row:]
    mask = kwargs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 4:
        kwargs["attention_mask"] = mask[:, :, row:]
    else:
        rows = torch.arange(row, length, device=x.device)
        keys = torch.arange(length, device=x.device)
        kwargs["attention_mask"] = (keys[None] <= rows[:, None])[None, None]
    return kwargs
