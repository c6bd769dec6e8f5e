"""Figures of a study: curves between their controls, or what each ablation changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import ProbeError
from probe.plot.style import ACCENT, DEEP, DOUBLE, FAINT, INK, PALE, QUIET, new_figure, paper

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from probe.study.show import Summary

LINES: dict[str, dict[str, Any]] = {
    "method": {"color": ACCENT, "marker": "o", "linestyle": "-"},
    "random": {"color": "#8d8880", "marker": "D", "linestyle": (0, (1.2, 1.2))},
    "uniform frames": {"color": DEEP, "marker": "^", "linestyle": (0, (5, 1.4, 1, 1.4))},
}
LEVELS = {"untouched": (INK, "-"), "blind": (PALE, (0, (5, 1.6)))}


def check(path: Path) -> None:
    """Refuse a file that is no picture.

    Raises:
        ProbeError: by its name.
    """
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise ProbeError(f"{path}: a figure is a .png, .pdf or .svg file")


def draw(summary: Summary, path: Path) -> None:
    """Write the figure of a study: its curves, or, where it has none, the changes.

    Raises:
        ProbeError: nothing to draw, or a file that cannot be written.
    """
    if not len(summary.scores):
        raise ProbeError(f"{summary.name}: no scores to draw")
    figure = curves(summary.curves) if len(summary.curves) else changes(summary.scores)
    try:
        with paper():
            figure.savefig(path, dpi=300)
    except OSError as error:
        raise ProbeError(f"{path}: cannot be written ({error.strerror or error})") from None


@paper()
def curves(table: pd.DataFrame) -> Figure:
    """Each curve in a row, each score in a column, with the controls it has to beat.

    Args:
        table: of `show_curves.curve_table`.
    """
    rows: Any = table
    several = rows["model"].nunique() > 1
    places: Any = list(rows.groupby(["model", "curve"], sort=False).groups)
    scores = list(dict.fromkeys(rows["score"]))
    width = DOUBLE * min(1.0, len(scores) / 2)
    figure = new_figure(width, 0.35 + 1.75 * len(places))
    axes: Any = figure.subplots(len(places), len(scores), squeeze=False)
    for number, (model, name) in enumerate(places):
        for column, score in enumerate(scores):
            cell = rows[(rows["model"] == model) & (rows["curve"] == name)]
            cell = cell[(cell["score"] == score) & (cell["versus"] == "")]
            ax = axes[number, column]
            if len(cell):
                _curve(ax, cell, str(name), str(score))
            if column == 0:
                ax.set_title(f"{name}, {model}" if several else str(name))
    handles, labels = {}, {}
    for ax in axes.flat:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles[label], labels[label] = handle, label
    how: dict[str, Any] = {"loc": "outside lower center", "ncols": 5, "frameon": False}
    figure.legend(list(handles.values()), list(labels), handlelength=2.4, **how)
    return figure


def _curve(ax: Axes, table: Any, name: str, score: str) -> None:
    points = np.sort(table.loc[table["method"] == name, "point"].dropna().unique())
    for method, (color, dashes) in LEVELS.items():
        level = table[(table["method"] == method) & table["point"].isna()]
        if len(level):
            first = level.iloc[0]
            ax.axhspan(first["low"], first["high"], color=color, alpha=0.12, lw=0, zorder=0)
            ax.axhline(first["estimate"], color=color, ls=dashes, lw=0.8, label=method, zorder=1)
    for method in ("random", "uniform frames", name):
        rows = table[(table["method"] == method) & table["point"].notna()].sort_values("point")
        if not len(rows):
            continue
        style = LINES["method" if method == name else method]
        seeds = int(rows["seeds"].max())
        label = {"random": f"random, {seeds} seed{'s' * (seeds > 1)}", name: "method"}
        x, band = rows["point"], (rows["low"], rows["high"])
        ax.fill_between(x, *band, color=style["color"], alpha=0.16, lw=0, zorder=2)
        ax.plot(x, rows["estimate"], mew=0, ms=3.6, label=label.get(method, method), **style)
    if points[0] > 0 and points[-1] / points[0] > 3:
        ax.set_xscale("log")
    ax.set_xticks(points, [f"{point:g}" for point in points])
    ax.minorticks_off()
    ax.set_xlabel(str(table["by"].iloc[0]))
    ax.set_ylabel(score)


@paper()
def changes(table: pd.DataFrame) -> Figure:
    """The change of each score under each ablation and control, with its interval.

    Args:
        table: of `show_scores.scores`.

    Raises:
        ProbeError: nothing but the untouched run.
    """
    changed: Any = table[table["difference"].notna()]
    if not len(changed):
        raise ProbeError("figure: nothing stands beside the untouched run yet")
    several = changed["model"].nunique() > 1
    rows: Any = list(changed.groupby(["model", "label"], sort=False).groups)
    scores = list(dict.fromkeys(changed["score"]))
    figure = new_figure(DOUBLE, 0.6 + 0.19 * len(rows))
    axes: Any = figure.subplots(1, len(scores), squeeze=False, sharey=True)
    for ax, score in zip(axes[0], scores, strict=True):
        for place, key in enumerate(rows):
            here = changed[(changed["model"] == key[0]) & (changed["label"] == key[1])]
            here = here[here["score"] == score]
            if not len(here):
                continue
            one = here.iloc[0]
            color = ACCENT if one["role"] == "ablation" else DEEP
            band = [one["difference_low"], one["difference_high"]]
            ax.plot(band, [place, place], color=color, lw=1.2, zorder=2)
            ax.plot(one["difference"], place, "o", color=color, ms=4, mew=0, zorder=3)
        ax.axvline(0, color=QUIET, lw=0.6, zorder=0)
        ax.set_xlabel(f"{score}: change")
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", color=FAINT, lw=0.4)
    names = [f"{label}, {model}" if several else str(label) for model, label in rows]
    axes[0, 0].set_yticks(range(len(rows)), names)
    axes[0, 0].invert_yaxis()
    return figure
