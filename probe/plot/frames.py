"""Strips of frames with a value per token painted over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from probe.plot.attention import color_bar
from probe.plot.style import DOUBLE, heat, new_figure, paper, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Evidence = Sequence[tuple[int, tuple[int, int, int, int]]]
PER_ROW, MOST = 8, 16


@paper()
def frame_strip(
    frames: UInt8[np.ndarray, "time height width 3"],
    painted: Float[np.ndarray, "time height width"],
    *,
    seconds: Sequence[float] | np.ndarray,
    label: str,
    evidence: Evidence = (),
    width: float = DOUBLE,
    figure: Figure | None = None,
) -> Figure:
    """Frames in the order of time, with the value of each pixel's token as a tint.

    Args:
        frames: the frames the model was given.
        painted: from `layout.paint`; values that go below 0 are shown on a two-sided scale.
        seconds: time of each frame.
        label: what the values are, for the scale.
        evidence: (frame, box in pixels) to outline.
        width: inches.
        figure: where to draw, a figure or subfigure; a new one by default.

    Above 16 frames, 16 evenly spaced ones are shown, labelled with their own times.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    shown = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), MOST)).round().astype(int))
    columns = min(len(shown), PER_ROW)
    height, wide = frames.shape[1:3]
    figure = figure or new_figure(width, strip_height(len(frames), height / wide, width))
    # One axes in pixels of a frame, all frames side by side: 16 axes take 16 times as long.
    ax = figure.add_subplot()
    ax.set_axis_off()
    gap, above = 0.045 * wide, 0.15 / _frame_width(columns, width) * wide
    low, high = span(painted)
    colors = signed() if low < 0 else heat()
    for place, frame in enumerate(shown):
        x, y = place % columns * (wide + gap), place // columns * (height + above) + above
        picture = tint(frames[frame], painted[frame], low, high, colors)
        ax.imshow(picture, extent=(x, x + wide, y + height, y), interpolation="nearest")
        ax.text(x, y - 0.25 * above, f"{frame} · {seconds[frame]:.2f} s", size=6.2)
        for number, box in evidence:
            if number == frame:
                _outline(ax, box, x, y)
    rows = -(-len(shown) // columns)
    ax.set(xlim=(0, columns * (wide + gap) - gap), ylim=(rows * (height + above), 0))
    color_bar(ax, ScalarMappable(Normalize(low, high), colors), label)
    return figure


def strip_height(count: int, shape: float, width: float = DOUBLE) -> float:
    """Inches that a strip takes: `count` frames of height / width `shape`, `width` inches wide."""
    columns = min(count, PER_ROW)
    rows = -(-min(count, MOST) // columns)
    return rows * (shape * _frame_width(columns, width) + 0.15) + 0.06


def _frame_width(columns: int, width: float) -> float:
    return (width - 0.78) / (1.045 * columns - 0.045)


def span(values: np.ndarray) -> tuple[float, float]:
    """(low, high) of a colour scale: from 0, or both ways alike where values are signed."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    if finite.min() >= 0:
        return 0.0, float(finite.max()) or 1.0
    high = float(np.abs(finite).max())
    return -high, high


def tint(
    frame: UInt8[np.ndarray, "height width 3"],
    values: Float[np.ndarray, "height width"],
    low: float,
    high: float,
    colors: Colormap,
) -> Float[np.ndarray, "height width 3"]:
    """The frame, bleached, under colours whose opacity grows with the value."""
    base = 1 - 0.7 * (1 - frame / 255.0)
    shown = np.clip((values - low) / (high - low), 0, 1)
    strength = np.nan_to_num(np.clip(np.abs(values) / max(abs(low), abs(high)), 0, 1))
    opacity = 0.9 * np.minimum(strength / 0.6, 1)[..., None]
    return base * (1 - opacity) + colors(np.nan_to_num(shown))[..., :3] * opacity


def _outline(ax: Axes, box: tuple[int, int, int, int], left: float, top: float) -> None:
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = box
    for color, width in (("black", 1.8), ("white", 0.8)):
        corner = left + x0, top + y0
        edge = Rectangle(corner, x1 - x0, y1 - y0, fill=False, ec=color, lw=width)
        ax.add_patch(edge)
