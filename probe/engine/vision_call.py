"""One attention layer of a vision tower: blocks of tokens that see each other, and statistics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

TILE = {"cpu": 1 << 20, "cuda": 1 << 26}  # weights in a tile: 4 MB, 256 MB


@dataclass
class VisionStatistics:
    """Of all tokens in some blocks of one layer, float32, on the tower's device.

    Attributes:
        received: [block, head, key]: weight on a key, mean over the patches of the block.
        entropy: [block, head, row] in nats.
        cls: [block, head, key]: weight of the first token of the block on each key.
        frames: [block, head, row, frame]: weight of a row on the tokens of each frame; None where
            no block has tokens of two frames.
    """

    received: Tensor | None = None
    entropy: Tensor | None = None
    cls: Tensor | None = None
    frames: Tensor | None = None


@dataclass
class VisionCall:
    """Blocks of equal length in one forward of one attention layer of a vision tower.

    A tower that takes frames as a batch has a block a frame; one that takes all frames as a
    sequence has a block a window, a frame or a clip.

    Attributes:
        layer: 0-based number of the tower's layer; the number of layers for a pooling head.
        module: the attention module.
        query: [block, head, row, channel], rotated, as the attention function got it.
        key: [block, kv_head, key, channel].
        mask: as transformers made it ([block or 1, 1, row, key], bool or additive), or None.
        scaling: factor on q . k.
        tokens: which of `session.vision.tokens` the keys of each block are; also the rows,
            unless this is a pooling head.
        frame: frame of each of these tokens.
        prefix: tokens in front of the patches of each block.
        pooling: True for a pooling head, whose one row is a learned query.
    """

    layer: int
    module: Any
    query: Float[Tensor, "block head row channel"]
    key: Float[Tensor, "block kv_head key channel"]
    mask: Tensor | None
    scaling: float
    tokens: Int[np.ndarray, "block key"]
    frame: Int[np.ndarray, "block key"]
    prefix: int = 0
    pooling: bool = False
    wanted: frozenset[str] = field(default_factory=frozenset)
    _statistics: VisionStatistics | None = None

    @property
    def heads(self) -> int:
        """Number of query heads."""
        return self.query.shape[1]

    @property
    def mixes(self) -> bool:
        """True where a block has tokens of more than one frame."""
        return bool((self.frame != self.frame[:, :1]).any())

    def first_row(self) -> Float[Tensor, "block head key"]:
        """Attention weights of the first row of each block (CLS, or a pooling head's query)."""
        heads = slice(0, self.heads)
        together = max(1, self._budget // self.key[0].numel())
        return torch.cat(
            [
                self._scores(slice(block, block + together), heads, slice(0, 1)).softmax(-1)[
                    :, :, 0
                ]
                for block in range(0, len(self.query), together)
            ]
        )

    def tiles(self) -> Iterator[tuple[slice, slice, slice, Tensor]]:
        """All rows in tiles of bounded size: (blocks, heads, rows, scores [.., row, key])."""
        blocks, heads, rows, _ = self.query.shape
        whole, shared = rows * self.key.shape[2], heads // self.key.shape[1]
        together = max(1, self._budget // (heads * whole))
        abreast = min(heads, max(1, self._budget // (whole * shared)) * shared)
        high = min(rows, max(1, self._budget // (abreast * self.key.shape[2])))
        for block in range(0, blocks, together):
            some = slice(block, min(block + together, blocks))
            for head in range(0, heads, abreast):
                of = slice(head, min(head + abreast, heads))
                for row in range(0, rows, high):
                    part = slice(row, min(row + high, rows))
                    yield some, of, part, self._scores(some, of, part)

    def statistics(self) -> VisionStatistics:
        """What captures want, computed once: one pass over tiles unless only CLS is wanted."""
        if self._statistics is None:
            self._statistics = self._sweep()
        return self._statistics

    @property
    def _budget(self) -> int:
        return TILE.get(self.query.device.type, TILE["cpu"])

    def _scores(self, blocks: slice, heads: slice, rows: slice) -> Tensor:
        """Scores before the softmax, mask applied, in float32."""
        shared = self.heads // self.key.shape[1]
        key = self.key[blocks, heads.start // shared : -(-heads.stop // shared)].float()
        query = self.query[blocks, heads, rows].float() * self.scaling
        scores = (query.unflatten(1, (key.shape[1], -1)) @ key[:, :, None].mT).flatten(1, 2)
        if self.mask is None:
            return scores
        mask = self.mask[blocks] if len(self.mask) > 1 else self.mask
        mask = mask[:, heads] if mask.shape[1] > 1 else mask
        mask = mask[:, :, rows] if mask.shape[2] > 1 else mask
        if mask.dtype == torch.bool:
            return scores.masked_fill(~mask, float("-inf"))
        return scores + mask

    def _sweep(self) -> VisionStatistics:
        """For a tile of scores s with row maximum m: e = exp(s - m), z = sum e; then weights are
        e / z and the entropy is log z - sum(e (s - m)) / z.
        """
        found = VisionStatistics()
        blocks, heads, rows, _ = self.query.shape
        columns, device = self.key.shape[2], self.query.device
        if "cls" in self.wanted and self.prefix:
            found.cls = self.first_row()
        onehot = self._frames() if "frames" in self.wanted and self.mixes else None
        if not self.wanted & {"received", "entropy"} and onehot is None:
            return found
        if "received" in self.wanted:
            found.received = torch.zeros(blocks, heads, columns, device=device)
        if "entropy" in self.wanted:
            found.entropy = torch.empty(blocks, heads, rows, device=device)
        if onehot is not None:
            found.frames = torch.empty(blocks, heads, rows, onehot.shape[-1], device=device)
        share = torch.full((rows,), 1 / max(1, rows - self.prefix), device=device)
        share[: self.prefix] = 0
        for some, of, part, scores in self.tiles():
            scores -= scores.amax(-1, keepdim=True)
            e = scores.exp()
            total = e.sum(-1)
            if found.received is not None:
                found.received[some, of] += ((share[part] / total)[:, :, None] @ e)[:, :, 0]
            if found.frames is not None and onehot is not None:
                found.frames[some, of, part] = (e @ onehot[some, None]) / total[..., None]
            if found.entropy is not None:
                # Where e is 0 the score is -inf, and 0 x -inf would be NaN.
                spread = torch.linalg.vecdot(e, scores.clamp_(min=-1e30)) / total
                found.entropy[some, of, part] = total.log() - spread
        return found

    def _frames(self) -> Float[Tensor, "block key frame"]:
        frame = torch.as_tensor(self.frame, device=self.query.device)
        return torch.nn.functional.one_hot(frame).float()
