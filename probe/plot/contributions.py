"""What adds to the margin: by layer and part, and by frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probe.plot.attention import layer_ticks
from probe.plot.style import ACCENT, FAINT, INK, PART_NAMES, PARTS, QUIET, axes, figure_of, paper
from probe.plot.tables import contribution_by_source, frame_labels, short

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HATCHES = {"embedding": "", "attention": "", "mlp": "////"}


@paper()
def contributions_by_layer(
    parts: xr.DataArray, of: str = "margin", *, ax: Axes | None = None
) -> Figure:
    """Bars by layer and part, and their running sum, which ends at the logit difference.

    Args:
        parts: contributions [layer, part] in logits.
        of: what they add up to, for the axis.
        ax: where to draw; a new one-column figure by default.
    """
    ax = axes(ax, height=2.2)
    layers = parts.layer.values
    names = [str(name) for name in parts.part.values if float(abs(parts.sel(part=name)).sum())]
    values = parts.sel(part=names).transpose("layer", "part").values
    total = float(parts.sum())
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        ax.bar(
            layers + (number - (len(names) - 1) / 2) * width,
            values[:, number],
            width,
            color=PARTS.get(name, FAINT),
            edgecolor="white",
            hatch=HATCHES.get(name, ""),
            linewidth=0.3,
            label=PART_NAMES.get(name, name),
        )
    running = np.cumsum(values.sum(1))
    ax.plot(
        layers, running, color=INK, lw=0.9, marker="o", ms=2.4, mfc="white", label="running sum"
    )
    ax.axhline(0, color=QUIET, lw=0.6)
    ax.axhline(total, color=INK, lw=0.6, ls=(0, (1, 2)))
    ax.annotate(
        f"sum\n{total:.2f}".replace("-", "−"),
        (1, total),
        (2, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        size=6.8,
    )
    ax.set_xlabel("layer")
    ax.set_ylabel(f"adds to {of}\n(logits)")
    ax.margins(y=0.12)
    layer_ticks(ax, layers)
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=4,
        borderaxespad=0.1,
        handlelength=1.2,
        handletextpad=0.4,
        columnspacing=0.8,
    )
    return figure_of(ax)


@paper()
def contributions_by_frame(
    heads: xr.DataArray, of: str = "margin", *, ax: Axes | None = None
) -> Figure:
    """What attention of all layers and heads brought from each frame, and from the text.

    Args:
        heads: contributions_attention [layer, head, source_group] in logits.
        of: what they add to, for the axis.
        ax: where to draw; a new one-column figure by default.
    """
    ax = axes(ax, height=2.0)
    table = contribution_by_source(heads)
    frames = frame_labels(table.source_group.values)
    others = [str(label) for label in table.source_group.values if str(label) not in frames]
    places = np.arange(len(frames))
    ax.bar(places, table.sel(source_group=frames).values, 0.78, color=ACCENT)
    slot = max(1.0, len(frames) / 14)
    beside = len(frames) + slot * (0.6 + np.arange(len(others)))
    hatched = {"color": "#b9b3aa", "hatch": "////", "edgecolor": "white", "linewidth": 0.3}
    ax.bar(beside, table.sel(source_group=others).values, 0.78 * slot, **hatched)
    ax.axhline(0, color=QUIET, lw=0.6)
    step = -(-len(frames) // 8)
    ax.set_xticks(
        [*places[::step], *beside], [*(short(label) for label in frames[::step]), *others]
    )
    for tick in ax.get_xticklabels()[len(places[::step]) :]:
        tick.set(rotation=40, ha="right", rotation_mode="anchor")
    ax.tick_params(axis="x", length=0)
    ax.set_xlabel("frame", x=len(frames) / (len(frames) + slot * (len(others) + 0.6)) / 2)
    ax.set_ylabel(f"adds to {of}\n(logits)")
    return figure_of(ax)
