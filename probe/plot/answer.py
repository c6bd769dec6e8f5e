"""The answer itself: what each generated token owes the video, and where the answer forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probe.plot.attention import layer_ticks
from probe.plot.style import ACCENT, DEEP, DOUBLE, INK, LINES, QUIET, SINGLE, axes, figure_of, paper
from probe.plot.tables import follow_lens, printable

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@paper()
def generated_tokens(
    tokens: pd.DataFrame, *, width: float | None = None, ax: Axes | None = None
) -> Figure:
    """Visual influence of each generated token, in the order generated.

    Args:
        tokens: columns token, influence (nats).
        width: inches, where a figure is made; one column for up to five tokens, else two.
        ax: where to draw.
    """
    width = width or (SINGLE if len(tokens) <= 5 else DOUBLE)
    ax = axes(ax, width=width, height=1.7)
    values = tokens["influence"].to_numpy(dtype=float)
    places = np.arange(len(values))
    ax.bar(places, values, 0.72, color=ACCENT)
    names = [printable(token, 14) for token in tokens["token"]]
    room = (width - 0.6) / max(len(names), 4)  # inches a name; a letter takes about 0.06
    crowded = 0.06 * max(map(len, names), default=0) > room
    ax.set_xticks(places, names)
    if crowded:
        for tick in ax.get_xticklabels():
            tick.set(rotation=50, ha="right", rotation_mode="anchor")
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.6, max(len(values), 4) - 0.4)
    ax.set_ylabel("visual influence\n(nats)")
    return figure_of(ax)


@paper()
def logit_lens(
    data: xr.Dataset, target: str, versus: str | None = None, *, ax: Axes | None = None
) -> Figure:
    """Probability of the answer and of its rival by layer, read at the end of the prompt.

    A hollow marker is an upper bound: the token is not among those the lens kept.

    Args:
        data: has logit_lens_probability and logit_lens_token [lens_layer, readout, rank].
        target, versus: tokens to follow.
        ax: where to draw; a new one-column figure by default.
    """
    ax = axes(ax, height=2.1)
    styles = [(ACCENT, "o", "-"), (DEEP, "s", LINES["norm"]["linestyle"])]
    for token, (color, marker, line) in zip([target, versus], styles, strict=True):
        if token is None:
            continue
        table = follow_lens(data, token)
        ax.plot(table["lens_layer"], table["probability"], color=color, ls=line, zorder=2)
        for kept, fill in ((True, color), (False, "white")):
            part = table[table["kept"] == kept]
            ax.plot(
                part["lens_layer"],
                part["probability"],
                ls="",
                marker=marker,
                color=color,
                mfc=fill,
                mew=0.8,
                zorder=3,
                clip_on=False,
            )
        ax.plot([], [], color=color, ls=line, marker=marker, label=printable(token, 16))
    top = data.logit_lens_token.isel(readout=0, rank=0).values
    if len(top) <= 14:
        ax.annotate(
            "top:",
            (0, 1.03),
            (-12, 0),
            xycoords="axes fraction",
            size=6.2,
            color=QUIET,
            textcoords="offset points",
            ha="right",
            va="bottom",
        )
        for layer, token in zip(data.lens_layer.values, top, strict=True):
            ax.annotate(
                printable(str(token), 9),
                (layer, 1.03),
                rotation=45,
                size=6.2,
                color=INK,
                xycoords=("data", "axes fraction"),
                ha="left",
                va="bottom",
                annotation_clip=False,
            )
    ax.set_ylim(0, 1)
    ax.set_xlabel("stream that enters layer (last: output)")
    ax.set_ylabel("probability")
    layer_ticks(ax, data.lens_layer.values)
    ax.legend(loc="best")
    return figure_of(ax)
