"""Places of a clip's tokens: a row a frame, and the grid of a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.models.layout import Layout


def clip_tokens(layout: Layout) -> Int[np.ndarray, " token"]:
    """Positions of the first clip's tokens, in the order of the sequence.

    Raises:
        ProbeError: a prompt without a clip.
    """
    return layout.select("video 0")


def by_frame(layout: Layout, owner: str) -> Int[np.ndarray, "frame place"]:
    """Positions of the first clip's tokens, a row a temporal group; places in one order.

    Raises:
        ProbeError: temporal groups with different numbers of tokens.
    """
    tokens = clip_tokens(layout)
    groups = layout.group[tokens]
    counts = np.unique(groups, return_counts=True)[1]
    if (counts != counts[0]).any():
        raise ProbeError(
            f"{owner}: the clip's frames have {counts.min()} to {counts.max()} tokens; places can "
            "be followed in time only where all have as many"
        )
    order = np.lexsort((layout.col[tokens], layout.row[tokens], groups))
    return tokens[order].reshape(len(counts), counts[0])


def grid(layout: Layout, owner: str) -> Int[np.ndarray, "frame row col"] | None:
    """Positions of the first clip's tokens on their grid; None where they have no place in it.

    Tokens that stand for their whole frame (CLS) are left out.
    """
    table = by_frame(layout, owner)
    placed = layout.row[table] >= 0  # tokens without a cell come first in each row
    table = table[:, int((~placed).sum(1).max()) :]
    if not table.size:
        return None
    shape = (int(layout.row[table].max()) + 1, int(layout.col[table].max()) + 1)
    whole = shape[0] * shape[1] == table.shape[1] == placed.sum(1).min()
    return table.reshape(len(table), *shape) if whole else None


def frame_labels(layout: Layout, table: np.ndarray) -> list[str]:
    """Label of each row of `by_frame`: "frame 3", "frames 2-3"."""
    return [layout.groups[number] for number in layout.group[table[:, 0]]]


def evenly(positions: Int[np.ndarray, " token"], most: int) -> Int[np.ndarray, " chosen"]:
    """At most so many positions, evenly spaced, the first and the last among them."""
    if len(positions) <= most:
        return positions
    return positions[np.linspace(0, len(positions) - 1, most).round().astype(int)]
