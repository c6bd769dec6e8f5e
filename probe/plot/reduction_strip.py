"""Frames on which what a reduction leaves of each token can be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from probe.plot.frames import MOST, PER_ROW
from probe.plot.style import ACCENT, QUIET

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from probe.ablate.reduction.record import Reduction
    from probe.models.layout import Layout

GONE = (0.925, 0.915, 0.9)  # colour of a token of which nothing is left


def remaining(reductions: Sequence[Reduction]) -> np.ndarray:
    """Positions at which something is left."""
    left = reductions[0].candidates
    for one in reductions:
        left = np.union1d(np.setdiff1d(left, one.candidates), one.anchors)
    return left


def left_of(reductions: Sequence[Reduction], positions: int) -> Float[np.ndarray, " position"]:
    """What several reductions in a row leave of each position: column sums of their product.

    Args:
        reductions: in the order in which they ran.
        positions: length of the layout.

    Returns:
        1 where a token stays as it is, 0 where nothing is left; NaN where it was no candidate.
    """
    total = np.ones(positions)
    for one in reversed(reductions):
        w = one.weights
        # A merged output is seen at its anchor; what later ones leave of it is left of its parts.
        later = total[one.anchors]
        total = total.copy()
        total[one.candidates] = np.bincount(w.col, w.value * later[w.row], minlength=w.size)
    known = np.unique(np.concatenate([one.candidates for one in reductions]))
    vector = np.full(positions, np.nan)
    vector[known] = total[known]
    return vector


def fade(
    frame: UInt8[np.ndarray, "height width 3"], left: Float[np.ndarray, "height width"]
) -> Float[np.ndarray, "height width 3"]:
    """The frame where all is left, a flat colour where nothing is, a mixture between."""
    share = np.clip(np.nan_to_num(np.abs(left), nan=1.0), 0, 1)[..., None]
    share = np.where((share > 0) & (share < 1), 0.15 + 0.6 * share, share)
    return frame / 255.0 * share + np.array(GONE) * (1 - share)


def draw_strip(
    ax: Axes,
    layout: Layout,
    reductions: Sequence[Reduction],
    frames: np.ndarray,
    clip: int,
    width: float,
) -> None:
    """The frames with what is left of each token, boxes around merged outputs, and a key.

    Args:
        ax: where to draw.
        layout: of the run.
        reductions: one, or several that follow each other.
        frames: [time, height, width, 3] of the clip.
        clip: which clip.
        width: inches that the strip will have.
    """
    painted = layout.paint(left_of(reductions, len(layout)), clip=clip)
    shown = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), MOST)).round().astype(int))
    columns = min(len(shown), PER_ROW)
    tall, wide = frames.shape[1:3]
    gap = 0.045 * wide
    above = 0.15 * wide * (1.045 * columns - 0.045) / (width - 0.12)
    ax.set_axis_off()
    first, places = layout.clips[clip].first, []
    for place, frame in enumerate(shown):
        x, y = place % columns * (wide + gap), place // columns * (tall + above) + above
        picture = fade(frames[frame], painted[frame])
        ax.imshow(picture, extent=(x, x + wide, y + tall, y), interpolation="nearest")
        ax.text(x, y - 0.25 * above, f"{frame} · {layout.seconds[first + frame]:.2f} s", size=6.2)
        places.append((first + frame, x, y))
    merged = _outline(ax, layout, reductions, places, clip, (tall, wide))
    _key(ax, merged)
    rows = -(-len(shown) // columns)
    ax.set(xlim=(-0.5, columns * (wide + gap) - gap), ylim=(rows * (tall + above), 0))


def _outline(
    ax: Axes,
    layout: Layout,
    reductions: Sequence[Reduction],
    places: list,
    clip: int,
    size: tuple[int, int],
) -> bool:
    """A box around each output that was made of several tokens and is still there; whether any."""
    from matplotlib.collections import PolyCollection

    merged = {
        int(one.anchors[row])
        for one in reductions
        for row in np.flatnonzero(np.bincount(one.weights.row, minlength=len(one.weights)) > 1)
    }
    merged &= set(remaining(reductions).tolist())
    cells = layout.clips[clip].cells
    if cells is None or not merged:
        return bool(merged)
    high, wide = size[0] / cells[0], size[1] / cells[1]
    boxes = []
    for position in sorted(merged):
        group, row, col = (int(v[position]) for v in (layout.group, layout.row, layout.col))
        for frame, x, y in places:
            if group >= 0 and row >= 0 and frame == layout.frames[group][0]:
                x0, y0 = x + col * wide, y + row * high
                boxes.append([(x0, y0), (x0 + wide, y0), (x0 + wide, y0 + high), (x0, y0 + high)])
    ax.add_collection(PolyCollection(boxes, facecolors="none", edgecolors=ACCENT, linewidths=0.7))
    return True


def _key(ax: Axes, merged: bool) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=GONE, edgecolor=QUIET, linewidth=0.3, label="nothing left")]
    if merged:
        some = 0.6 * np.array(GONE) + 0.4 * np.array([0.4, 0.42, 0.4])
        handles.append(
            Patch(facecolor=tuple(some.tolist()), label="merged, with what is left of it")
        )
        box = Patch(facecolor="none", edgecolor=ACCENT, linewidth=0.7)
        box.set_label("place of a merged output")
        handles.append(box)
    ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0, 0),
        ncols=3,
        handlelength=1,
        handleheight=1,
        handletextpad=0.5,
        columnspacing=1.5,
        borderaxespad=0.3,
    )
