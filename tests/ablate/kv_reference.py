"""What tokens after the prompt read, from the captured rows, and the plain decoder under it."""

from __future__ import annotations

import numpy as np

from probe.capture import AttentionRows
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests.decoder import decode

ROWS = [AttentionRows("last")]


def unread(run) -> np.ndarray:
    """[step, layer, position]: True where no head gives any weight, of keys up to the row."""
    rows = run.data.attention_rows.values[:, :, :, 0]
    gone = ~(np.nan_to_num(rows).max(2) > 0)
    for step, row in enumerate(run.readout):
        gone[step, :, row + 1 :] = False
    return gone


def cuts(run, x: Example, after: int | None = None) -> dict[int, np.ndarray]:
    """By layer, [query, key] that the run did not read; rows of the prompt behind `after` are
    taken to read what its last row reads.
    """
    gone, size = unread(run), len(x.layout)
    cut = {layer: np.zeros((size, size), bool) for layer in range(gone.shape[1])}
    for layer, table in cut.items():
        for step, row in enumerate(run.readout):
            table[row] = gone[step, layer, :size]
        if after is not None:
            table[after + 1 : x.layout.last] = gone[0, layer, :size]
    return cut


def definition(
    model: VideoModel, x: Example, cut: dict[int, np.ndarray], present: np.ndarray | None = None
) -> np.ndarray:
    """Logits [readout, vocab] of the answer, all at once, in float64 with dense masks."""
    return decode(model, x, cut, None, present)[x.layout.readout]


def best(scores: np.ndarray, positions: np.ndarray, count: int) -> set[int]:
    """Positions of the largest scores, ties to the earlier."""
    return set(positions[np.argsort(-scores, kind="stable")[:count]].tolist())
