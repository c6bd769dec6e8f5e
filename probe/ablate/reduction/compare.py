"""Points: features of candidates to compare, as cosines or distances, never all pairs at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score
from probe.errors import ProbeError

PAIRS = 2**22  # in one block, 32 MiB


def features(c: Candidates, of: str, owner: str) -> Float[Tensor, "token channel"]:
    """What tokens are compared by.

    Args:
        c: the candidates.
        of: "x", the features at the site; "key", the keys of the vision encoder's last layer, from
            `c.readings["encoder_key"]` [token, channel].
        owner: who asks, for the error.

    Raises:
        ProbeError: the keys were not read, or `of` is neither.
    """
    if of == "x":
        return c.x
    if of != "key":
        raise ProbeError(f'{owner}: of="{of}" is not "x" or "key"')
    if "encoder_key" not in c.readings:
        raise ProbeError(
            f'{owner}: of="key" needs the keys of the vision encoder, which were not read here; '
            'use of="x"'
        )
    return c.readings["encoder_key"]


def keys_of(of: str) -> tuple[Score, ...]:
    """What has to be read for `features`."""
    if of != "key":
        return ()
    from probe.ablate.scores_encoder import Keys

    return (Keys(),)


@dataclass(frozen=True, eq=False)
class Points:
    """Tokens in float64. Similarities are rounded to nine decimals, so that equal tokens are
    equal whatever the order in which a matrix product adds, and ties can go to the earlier one.

    Attributes:
        x: [token, channel], of length 1 each with "cos", else divided by `scale`.
        cosine: compare by cosine; else by Euclidean distance.
        scale: length of the longest.
        near: similarities of all pairs, where they were asked for once and for all.
    """

    x: Float[Tensor, "token channel"]
    cosine: bool
    scale: float
    near: Float[Tensor, "token token"] | None = None

    @classmethod
    def of(cls, x: Float[Tensor, "token channel"], metric: str = "cos") -> Points:
        """From features, with metric "cos" or "distance"."""
        x = x.detach().double()
        if metric == "cos":
            return cls(torch.nn.functional.normalize(x, dim=-1), True, 1.0)
        scale = float(x.norm(dim=-1).max()) if len(x) else 1.0
        scale = scale or 1.0
        return cls(x / scale, False, scale)

    def tabled(self) -> Points:
        """The same with all pairs at hand, for repeated use; where they fit into one block."""
        index = np.arange(len(self.x))
        return (
            self if len(index) ** 2 > PAIRS else replace(self, near=self.similarity(index, index))
        )

    def similarity(
        self, rows: Int[np.ndarray, " row"], cols: Int[np.ndarray, " col"]
    ) -> Float[Tensor, "row col"]:
        """Cosines, or minus the squared distances in units of `scale`."""
        row, col = (torch.as_tensor(i, device=self.x.device) for i in (rows, cols))
        if self.near is not None:
            return self.near[row[:, None], col]
        a, b = self.x[row], self.x[col]
        inner = a @ b.T
        if not self.cosine:
            inner = 2 * inner - a.square().sum(1)[:, None] - b.square().sum(1)
            inner = inner.clamp(max=0)
        return inner.round(decimals=9)

    def distance(
        self, rows: Int[np.ndarray, " row"], cols: Int[np.ndarray, " col"]
    ) -> Float[Tensor, "row col"]:
        """1 - cosine, or Euclidean distances."""
        near = self.similarity(rows, cols)
        return 1 - near if self.cosine else (-near).sqrt() * self.scale

    def nearest(
        self, rows: Int[np.ndarray, " row"], targets: Int[np.ndarray, " target"]
    ) -> tuple[Int[np.ndarray, " row"], Float[np.ndarray, " row"]]:
        """(target, similarity) of the most similar target of each row; ties go to the earlier."""
        found, values = [np.zeros(0, np.int64)], [np.zeros(0)]
        for block in blocks(rows, len(targets)):
            value, index = self.similarity(block, targets).cpu().max(dim=1)
            found.append(targets[index.numpy()])
            values.append(value.numpy())
        return np.concatenate(found), np.concatenate(values)


def blocks(rows: Int[np.ndarray, " row"], width: int) -> Iterator[Int[np.ndarray, " block"]]:
    """The rows in blocks of at most about four million pairs with `width` columns."""
    size = max(1, PAIRS // max(1, width))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
