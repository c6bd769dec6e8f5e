"""What a vision tower's attention modules got, block by block, put together to calls."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from probe.engine.vision_call import VisionCall
from probe.engine.vision_tokens import VisionTokens
from probe.errors import ProbeError


class Block(NamedTuple):
    """What one call of the attention function got: query and key [block, head, token, channel]."""

    query: Tensor
    key: Tensor
    mask: Tensor | None
    scaling: float


def vision_calls(
    layer: int,
    module: Any,
    blocks: Sequence[Block],
    tokens: VisionTokens,
    wanted: Collection[str],
    alive: np.ndarray | None = None,
) -> Iterator[VisionCall]:
    """The blocks of one forward of an attention module, those of equal length together.

    Args:
        layer: its number.
        module: the attention module.
        blocks: in the tower's own order.
        tokens: of this forward.
        wanted: statistics that captures ask for.
        alive: numbers of the tokens that an ablation has left in the tower; None for all.

    Raises:
        ProbeError: blocks that do not cover every token once.
    """
    place, first = tokens.place if alive is None else alive, 0
    lengths: dict[int, tuple[list[Block], list[np.ndarray]]] = {}
    for block in blocks:
        count, _, rows, _ = block.query.shape
        alike, ids = lengths.setdefault(rows, ([], []))
        alike.append(block)
        ids.append(place[first : first + count * rows].reshape(-1, rows))
        first += count * rows
    if first != len(place):
        raise ProbeError(
            f"vision layer {layer}: its attention covered {first} tokens of {len(place)}, "
            "so which token is which is not known"
        )
    auto = "cls" if tokens.prefix else "received"
    for alike, numbers in lengths.values():
        ids = np.concatenate(numbers)
        yield VisionCall(
            layer=layer,
            module=module,
            query=_joined([block.query for block in alike]),
            key=_joined([block.key for block in alike]),
            mask=_mask(alike),
            scaling=alike[0].scaling,
            tokens=ids,
            frame=tokens.frame[ids],
            prefix=tokens.prefix,
            wanted=frozenset(auto if name == "auto" else name for name in wanted),
        )


def pooling_call(
    layer: int,
    module: torch.nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    tokens: VisionTokens,
) -> VisionCall:
    """A pooling head: its learned query's attention to each frame's tokens, head by head.

    Args:
        layer: number that it gets.
        module: the pooling head.
        query, key: [frame, row or token, channel], before projection.
        tokens: of this forward.
    """
    width = key.shape[-1]
    weight, bias = module.in_proj_weight, module.in_proj_bias
    projected = []
    for x, part in ((query, slice(0, width)), (key, slice(width, 2 * width))):
        x = torch.nn.functional.linear(x, weight[part], None if bias is None else bias[part])
        projected.append(x.unflatten(-1, (module.num_heads, -1)).transpose(1, 2))
    ids = np.arange(len(tokens)).reshape(key.shape[:2])
    return VisionCall(
        layer=layer,
        module=module,
        query=projected[0],
        key=projected[1],
        mask=None,
        scaling=projected[0].shape[-1] ** -0.5,
        tokens=ids,
        frame=tokens.frame[ids],
        prefix=tokens.prefix,
        pooling=True,
    )


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]


def _mask(blocks: Sequence[Block]) -> Tensor | None:
    """One mask for all blocks; within a module all have one or none has."""
    given = [b.mask.expand(len(b.query), -1, -1, -1) for b in blocks if b.mask is not None]
    return _joined(given) if given else None
