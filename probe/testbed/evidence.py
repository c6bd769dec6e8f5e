"""Which tokens show what decides a question, by the scene graph of a testbed item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from probe.errors import ProbeError
from probe.testbed.question import Evidence
from probe.testbed.scene import Scene

if TYPE_CHECKING:
    from probe.models.layout import Layout
    from probe.models.visual import Visual
    from probe.testbed.item import Item

LEAST = 0.25


@dataclass(frozen=True, eq=False)
class Shown:
    """What the positions of a sequence show of an item.

    A token stands for a cell of its frame (of both frames where two were merged). It shows the
    evidence where boxes of the evidence cover a part `least` of that, and so do the tokens that
    they cover most in their frames, however little that is. Attention in the vision tower may
    carry more to other tokens; the scene graph knows the cells alone.

    Attributes:
        share: part of the token's cell, 0 to 1, that the evidence covers; 0 for all other tokens.
        evidence: it shows the evidence.
        touched: the evidence covers some of it.
        things: it shows any object of the scene, that of the evidence or another, by the same rule.
        group: temporal group of each position, -1 where it has none.
    """

    share: Float[np.ndarray, " position"]
    evidence: Bool[np.ndarray, " position"]
    touched: Bool[np.ndarray, " position"]
    things: Bool[np.ndarray, " position"]
    group: np.ndarray


def shown(layout: Layout, item: Item, least: float = LEAST, clip: int = 0) -> Shown:
    """What each position shows of an item that the model is shown as one of its clips.

    Args:
        layout: of the example; its frames may be fewer than the scene has.
        item: a testbed item.
        least: part of a cell that counts.
        clip: which clip of the prompt the item's is.

    Raises:
        ProbeError: no such clip, or one of other frames than the item's.
    """
    scene = item.scene
    share = covered(layout, item.question.evidence, scene, clip)
    things = covered(layout, boxes(scene), scene, clip)
    group = np.asarray(layout.group)
    return Shown(share, marked(share, group, least), share > 0, marked(things, group, least), group)


def boxes(scene: Scene) -> Evidence:
    """(frame, box) of every object in every frame that it is in."""
    return tuple(
        (frame, box)
        for thing in scene.things
        for frame, box in enumerate(thing.boxes)
        if box is not None
    )


def covered(
    layout: Layout, evidence: Evidence, scene: Scene, clip: int = 0
) -> Float[np.ndarray, " position"]:
    """Part of each video token's cell that boxes cover, their union where they overlap: the mean
    over the frames that the token stands for. Exact also where a cell's edges lie inside pixels.

    Args:
        layout: of the example.
        evidence: (frame of the scene, box in its pixels) pairs.
        scene: of the clip.
        clip: which clip of the prompt it is.

    Returns:
        One value per position, 0 where it is no video token of that clip. Tokens that have no
        place in their frame stand for all of it.

    Raises:
        ProbeError: no such clip, or frames that the scene does not have.
    """
    if not 0 <= clip < len(layout.clips):
        raise ProbeError(f"evidence: this prompt has no clip {clip}")
    visual = layout.clips[clip]
    source = np.asarray(layout.source_frame)[visual.first : visual.first + visual.frames]
    if source.min() < 0 or source.max() >= scene.frames:
        raise ProbeError(
            f"evidence: the clip shows frame {source.max()} of its file, the scene has "
            f"{scene.frames}; is it the clip of this item?"
        )
    cells, whole = _cells(integrals(evidence, scene), visual, scene.size)
    mine = layout.visual == layout.visuals.index(visual)
    tokens = np.flatnonzero((layout.role == "video") & mine & (layout.group >= 0))
    frames, share = layout.frames, np.zeros(len(layout))
    for group in np.unique(layout.group[tokens]):
        here = tokens[layout.group[tokens] == group]
        shown = source[np.array(frames[group]) - visual.first]
        placed = layout.row[here] >= 0
        share[here] = whole[shown].mean()
        mean = cells[shown].mean(0)
        share[here[placed]] = mean[layout.row[here[placed]], layout.col[here[placed]]]
    return np.clip(share.round(9), 0.0, 1.0)  # so that what touches no box is exactly 0


def integrals(
    evidence: Sequence[tuple[int, tuple[int, int, int, int]]], scene: Scene
) -> Float[np.ndarray, "frame y x"]:
    """Per frame, how many pixels above and left of each corner lie in a box."""
    inside = np.zeros((scene.frames, scene.size, scene.size))
    for frame, (x0, y0, x1, y1) in evidence:
        inside[frame, max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = 1
    table = np.zeros((scene.frames, scene.size + 1, scene.size + 1))
    table[:, 1:, 1:] = inside.cumsum(1).cumsum(2)
    return table


def marked(
    share: Float[np.ndarray, " position"], group: np.ndarray, least: float
) -> Bool[np.ndarray, " position"]:
    """Positions with a share of at least `least`, and those with the most in their group."""
    top = np.zeros(len(share))
    for number in np.unique(group[share > 0]):
        top[group == number] = share[group == number].max()
    return (share > 0) & (share >= np.minimum(least, top))


def _cells(
    table: Float[np.ndarray, "frame y x"], visual: Visual, size: int
) -> tuple[Float[np.ndarray, "frame row col"], Float[np.ndarray, " frame"]]:
    """Part of each cell, and of the whole frame, that lies in boxes."""
    whole = table[:, -1, -1] / size**2
    if visual.cells is None or visual.grid is None:
        return np.zeros((len(table), 1, 1)), whole
    rows, cols = visual.grid.row_edges * size, visual.grid.col_edges * size
    corners = _lines(_lines(table, rows.ravel()).swapaxes(1, 2), cols.ravel()).swapaxes(1, 2)
    corners = corners.reshape(len(table), len(rows), 2, len(cols), 2)
    inside = np.diff(np.diff(corners, axis=2), axis=4)[:, :, 0, :, 0]
    return inside / (np.diff(rows) * np.diff(cols).T), whole


def _lines(
    table: Float[np.ndarray, "frame y x"], at: Float[np.ndarray, " at"]
) -> Float[np.ndarray, "frame at x"]:
    """Rows of the tables at fractions of a row; what lies outside the frame is in no box."""
    at = np.clip(at, 0, table.shape[1] - 1)
    low = np.minimum(at.astype(int), table.shape[1] - 2)
    part = (at - low)[:, None]
    return table[:, low] * (1 - part) + table[:, low + 1] * part
