"""What the answer loses: tokens kept, the layer from which the video is gone, other clips."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probe.plot.attention import layer_ticks
from probe.plot.series import level
from probe.plot.style import ACCENT, DEEP, FAINT, INK, LINES, QUIET, axes, figure_of, paper
from probe.plot.tables import by_score

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@paper()
def kept_tokens(
    kept: pd.DataFrame, full: float, blind: float, of: str = "margin", *, ax: Axes | None = None
) -> Figure:
    """Margin against the number of visual tokens kept, one line a score.

    Args:
        kept: columns score, tokens, margin, margin_low, margin_high; a band is drawn where low
            and high differ.
        full, blind: margin with everything, and without any clip, in logits.
        of: what the margin is, for the axis.
        ax: where to draw; a new one-column figure by default.
    """
    ax = axes(ax, height=2.3)
    _levels(ax, full, blind)
    for score, table in by_score(kept).items():
        style = LINES.get(score, {"color": INK, "marker": "v", "linestyle": "-"})
        ax.plot(table["tokens"], table["margin"], label=score, mew=0, zorder=3, **style)
        if np.any(table["margin_high"].to_numpy() > table["margin_low"].to_numpy()):
            ax.fill_between(
                table["tokens"],
                table["margin_low"],
                table["margin_high"],
                color=FAINT,
                lw=0,
                zorder=1,
            )
    ax.set_xscale("log")
    far: list[int] = []
    for tick in sorted(set(kept["tokens"]), reverse=True):
        if tick and (not far or far[-1] / tick > 1.6):
            far.append(tick)
    ax.set_xticks(far, [f"{tick:,}" for tick in far])
    ax.minorticks_off()
    ax.set_xlabel("visual tokens kept")
    ax.set_ylabel(f"{of}\n(logits)")
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=4,
        borderaxespad=0.1,
        handlelength=2.2,
        handletextpad=0.4,
        columnspacing=0.8,
    )
    return figure_of(ax)


@paper()
def drop_from_layer(
    table: pd.DataFrame, full: float, blind: float, of: str = "margin", *, ax: Axes | None = None
) -> Figure:
    """Margin with all visual tokens gone from a layer on.

    Args:
        table: columns layer, margin; the last row (layer = number of layers) drops nothing.
        full, blind: margin with everything, and without any clip, in logits.
        of: what the margin is, for the axis.
        ax: where to draw; a new one-column figure by default.
    """
    ax = axes(ax, height=2.1)
    _levels(ax, full, blind)
    ax.plot(table["layer"], table["margin"], color=ACCENT, marker="o", mew=0, zorder=3)
    ax.set_xlabel("video gone from layer … on")
    ax.set_ylabel(f"{of}\n(logits)")
    layers = table["layer"].tolist()
    layer_ticks(ax, layers[:-1])
    ticks = [tick for tick in ax.get_xticks() if tick <= 0.94 * layers[-1]]
    ax.set_xticks([*ticks, layers[-1]], [*(f"{tick:.0f}" for tick in ticks), "kept"])
    return figure_of(ax)


@paper()
def counterfactual_clips(
    table: pd.DataFrame, of: str = "margin", *, ax: Axes | None = None
) -> Figure:
    """Margin with the clip as it is and with others in its place, one row a clip.

    Args:
        table: columns clip, margin, answer.
        of: what the margin is, for the axis.
        ax: where to draw; a new one-column figure by default.
    """
    ax = axes(ax, height=0.6 + 0.19 * len(table))
    places = range(len(table))
    own = table["answer"].iloc[0]
    for place, margin, answer in zip(places, table["margin"], table["answer"], strict=True):
        same = answer == own
        ax.plot([0, margin], [place, place], color=FAINT, lw=1.6, zorder=1)
        ax.plot(
            margin,
            place,
            marker="o" if same else "s",
            ms=4.6,
            zorder=3,
            mew=1,
            color=ACCENT if same else DEEP,
            mfc=ACCENT if same else "white",
        )
    ax.axvline(0, color=QUIET, lw=0.6, zorder=0)
    ax.set_yticks(list(places), table["clip"])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.margins(x=0.08)
    ax.set_xlabel(f"{of} (logits)")
    ax.plot([], [], "o", color=ACCENT, label="same first token")
    if (table["answer"] != own).any():
        ax.plot([], [], "s", color=DEEP, mfc="white", label="another")
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        borderaxespad=0.1,
        handlelength=1,
        columnspacing=1.2,
    )
    return figure_of(ax)


def _levels(ax: Axes, full: float, blind: float) -> None:
    level(ax, full, "full")
    level(ax, blind, "no clip", dashes=(4, 2))
