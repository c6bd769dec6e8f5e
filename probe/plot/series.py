"""Lines and matrices of small labelled arrays, of one clip or the mean of many with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.plot.attention import color_bar, layer_ticks
from probe.plot.style import INK, LINES, QUIET, heat, signed

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

STYLES = [LINES[name] for name in ("attention", "norm", "uniform", "random")]


def middle(values: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """An array of one clip, or the mean of many."""
    import xarray as xr

    return values["mean"] if isinstance(values, xr.Dataset) else values


def has_interval(values: xr.DataArray | xr.Dataset) -> bool:
    """Whether there are low and high values to draw."""
    import xarray as xr

    return isinstance(values, xr.Dataset) and bool(np.isfinite(values["low"]).any())


def series(
    ax: Axes,
    values: xr.DataArray | xr.Dataset,
    over: str,
    names: Mapping[Any, str],
    bands: int = len(STYLES),
) -> None:
    """A line over a dim for each label of the other dim.

    Args:
        ax: where to draw.
        values: [label, over] in any order; a Dataset of mean, low and high draws bands.
        over: the dim along x.
        names: what each line is called, by its label, in the order drawn.
        bands: how many lines, from the first on, have their interval drawn.
    """
    mean = middle(values)
    other = next((str(dim) for dim in mean.dims if dim != over), None)
    for number, (label, name) in enumerate(names.items()):
        one = values if other is None else values.sel({other: label})
        curve(ax, one if number < bands else middle(one), over, name, STYLES[number])
    if over in ("layer", "block"):
        layer_ticks(ax, mean[over].values)


def curve(
    ax: Axes, values: xr.DataArray | xr.Dataset, over: str, name: str, style: Mapping[str, Any]
) -> None:
    """One line [over], with its interval as a band where there is one."""
    mean = middle(values)
    there = np.isfinite(mean.values)
    x = mean[over].values
    ax.plot(x[there], mean.values[there], label=name, mew=0, zorder=3, **style)
    if has_interval(values):
        low, high = values["low"].values, values["high"].values
        ax.fill_between(
            x[there], low[there], high[there], color=style["color"], alpha=0.18, lw=0, zorder=1
        )


def level(ax: Axes, at: float, name: str, dashes: tuple[float, float] = (1, 1.6)) -> None:
    """A thin line across, with its name at the right end."""
    ax.axhline(at, color=QUIET, lw=0.7, ls=(0, dashes), zorder=0)
    ax.annotate(
        name,
        (1, at),
        (2, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        size=6.8,
        color=QUIET,
    )


def legend(ax: Axes, columns: int = 2) -> None:
    """The names of the lines above the axes."""
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        borderaxespad=0.1,
        handlelength=2.2,
        handletextpad=0.4,
        columnspacing=0.8,
    )


def matrix(
    ax: Axes,
    values: xr.DataArray,
    label: str,
    *,
    bounds: tuple[float, float] | None = None,
    ticks: Sequence[str] | None = None,
) -> None:
    """Cells of [row, column] with a scale; columns left to right, rows top to bottom.

    Args:
        ax: where to draw.
        values: two dims; their names label the axes, their labels the ticks.
        label: of the scale; none is drawn where it is empty.
        bounds: of the colours; 0 to the greatest by default, signed where the lower is negative.
        ticks: names of the columns, where not all are to be shown.
    """
    numbers = values.values
    low, high = bounds or (0.0, float(np.nanmax(numbers)))
    ramp = signed() if low < 0 else heat()
    # Cells are vector paths with an edge of their own colour: no raster, and no seams.
    mesh = ax.pcolormesh(
        np.ma.masked_invalid(numbers), cmap=ramp, vmin=low, vmax=high, edgecolors="face", lw=0.2
    )
    ax.invert_yaxis()
    for axis, dim in ((ax.yaxis, values.dims[0]), (ax.xaxis, values.dims[1])):
        names = [_text(name) for name in values[dim].values]
        step = -(-len(names) // 8)
        axis.set_ticks(np.arange(0, len(names), step) + 0.5, names[::step])
        axis.set_tick_params(length=0)
    if ticks is not None:
        ax.set_xticks(np.arange(len(ticks)) + 0.5, ticks)
    for side in ax.spines.values():
        side.set_visible(False)
    if label:
        color_bar(ax, mesh, label)
    ax.tick_params(colors=INK)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float | int | np.number) else str(value)
