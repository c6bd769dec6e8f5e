"""Where attention goes: by layer and frame, by layer and head, by layer alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.plot.style import ACCENT, DEEP, QUIET, axes, figure_of, heat, paper
from probe.plot.tables import mass_by_frame, mass_by_head, short

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@paper()
def attention_map(
    mass: xr.DataArray,
    query: str = "last",
    *,
    seconds: Sequence[float] | np.ndarray | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Attention of one query group by layer and frame, mean over heads.

    Args:
        mass: attention_mass [layer, head, query_group, key_group], 0 to 1.
        query: the query group that looks.
        seconds: time of each frame; the axis then says what the clip spans.
        ax: where to draw; a new one-column figure by default.
    """
    table = mass_by_frame(mass, query)
    labels = [short(str(label)) for label in table.key_group.values]
    ax = axes(ax, height=_height(len(table.layer)))
    _grid(ax, table, f"attention from {query}", labels)
    span = f" ({seconds[0]:.2f} to {seconds[-1]:.2f} s)" if seconds is not None else ""
    ax.set_xlabel(f"frame{span}")
    return figure_of(ax)


@paper()
def head_grid(mass: xr.DataArray, query: str = "last", *, ax: Axes | None = None) -> Figure:
    """Attention of one query group to the whole video, by layer and head.

    Args:
        mass: attention_mass [layer, head, query_group, key_group], 0 to 1.
        query: the query group that looks.
        ax: where to draw; a new one-column figure by default.
    """
    table = mass_by_head(mass, query)
    ax = axes(ax, height=_height(len(table.layer)))
    _grid(
        ax, table, f"attention from {query}\nto the video", [str(h) for h in table["head"].values]
    )
    ax.set_xlabel("head")
    return figure_of(ax)


@paper()
def layer_profile(
    mass: pd.DataFrame, similarity: pd.DataFrame, *, ax: Axes | None = None
) -> Figure:
    """Attention to the video and how alike adjacent frames are, by layer.

    Args:
        mass: columns layer, mass (0 to 1).
        similarity: columns layer, similarity (cosine, -1 to 1).
        ax: where to draw; a new one-column figure by default.
    """
    ax = axes(ax, height=1.9)
    style: dict[str, Any] = {"clip_on": False, "zorder": 3}
    ax.plot(
        mass["layer"], mass["mass"], color=ACCENT, marker="o", label="attention to video", **style
    )
    ax.plot(
        similarity["layer"],
        similarity["similarity"],
        color=DEEP,
        marker="s",
        linestyle=(0, (5, 1.6)),
        label="similarity of frames",
        **style,
    )
    ax.set_xlabel("layer")
    ax.set_ylabel("share or cosine")
    ax.set_ylim(min(0, float(np.nanmin(similarity["similarity"]))), 1)
    layer_ticks(ax, mass["layer"])
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.1)
    return figure_of(ax)


def layer_ticks(ax: Axes, layers: Iterable, most: int = 8) -> None:
    """Ticks along x at every layer, or at every n-th so that about `most` remain."""
    places = [int(layer) for layer in layers]
    ax.set_xticks(places[:: -(-len(places) // most)])


def _height(layers: int) -> float:
    return float(np.clip(0.55 + 0.2 * layers, 1.5, 4.2))


def _grid(ax: Axes, table: xr.DataArray, label: str, columns: list[str]) -> None:
    values = table.values
    layers = table.layer.values
    high = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    # Cells are vector paths with an edge of their own colour: no raster, and no seams.
    mesh = ax.pcolormesh(values, cmap=heat(), vmin=0, vmax=high or 1.0, edgecolors="face", lw=0.2)
    ax.invert_yaxis()
    rows = [str(layer) for layer in layers]
    for axis, names, most in ((ax.xaxis, columns, 16), (ax.yaxis, rows, 10)):
        step = -(-len(names) // most)
        shown = range(0, len(names), step)
        axis.set_ticks([place + 0.5 for place in shown], [names[place] for place in shown])
        axis.set_tick_params(length=0)
    ax.set_ylabel("layer")
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    color_bar(ax, mesh, label)


def color_bar(ax: Axes, mesh: Any, label: str) -> None:
    """A thin scale to the right of the axes."""
    bar: Any = figure_of(ax).colorbar(mesh, ax=ax, aspect=28, pad=0.02, fraction=0.06)
    bar.set_label(label)
    bar.solids.set(rasterized=False, edgecolor="face", linewidth=0.2)
    bar.outline.set_linewidth(0.4)
    bar.outline.set_edgecolor(QUIET)
    bar.ax.tick_params(length=2)
