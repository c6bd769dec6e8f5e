"""Two runs in one figure: the answer's probabilities, and where inside they differ."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.plot.attention import color_bar, layer_ticks
from probe.plot.style import (
    ACCENT,
    DEEP,
    DOUBLE,
    FAINT,
    LINES,
    SINGLE,
    new_figure,
    panel_labels,
    paper,
    signed,
)
from probe.plot.tables import frame_labels, printable, short

FLOOR = 1e-5  # smaller probabilities are drawn here

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from probe.comparison import Comparison


@paper()
def comparison(found: Comparison) -> Figure:
    """The answer's tokens in both runs; KL by step; attention, or all numbers, by layer.

    Panels appear where there is something to show: KL where there are several steps, the change
    of attention to each frame where both runs have it, else the change of each variable by layer.
    """
    panels: list[partial[None]] = [partial(_tokens, found)]
    if found.data.sizes["step"] > 1:
        panels.append(partial(_divergence, found))
    mass = _mass(found.data)
    if mass is not None:
        panels.append(partial(_attention, mass))
    elif profiles(found.data):
        panels.append(partial(_profiles, profiles(found.data)))
    wide = len(panels) > 1
    figure = new_figure(DOUBLE if wide else SINGLE, 2.3)
    widths = [1.0, *[0.8 if draw.func is _divergence else 1.2 for draw in panels[1:]]]
    axes = figure.subplots(1, len(panels), width_ratios=widths, squeeze=False)[0]
    for ax, draw in zip(axes, panels, strict=True):
        draw(ax)
    names = [printable(name, 110 if wide else 52) for name in found.names]
    handles = [line for line in axes[0].get_lines() if line.get_label() in ("a", "b")]
    beside = wide and sum(map(len, names)) < 100
    columns = 2 if beside or max(map(len, names)) < 20 else 1
    where: Any = "outside upper left"  # beside every panel, so that long names move none
    figure.legend(handles, names, loc=where, ncols=columns, handlelength=1, borderaxespad=0.2)
    if wide:
        panel_labels(axes)
    return figure


def _tokens(found: Comparison, ax: Axes) -> None:
    """Probability of the likeliest tokens of the first step, a line from one run to the other."""
    table = found.tokens[found.tokens["step"] == 0]
    places = list(range(len(table)))
    values = [np.maximum(np.asarray(table[run], dtype=float), FLOOR) for run in ("a", "b")]
    for place, a, b in zip(places, *values, strict=True):
        ax.plot([a, b], [place, place], color=FAINT, lw=1.6, zorder=1)
    style: dict[str, Any] = {"ls": "", "ms": 4.6, "zorder": 3, "clip_on": False}
    ax.plot(values[0], places, marker="s", mfc="white", mec=DEEP, label="a", **style)
    ax.plot(values[1], places, marker="o", mew=0, color=ACCENT, label="b", **style)
    names = [printable(token, 12) for token in table["token"]]
    twice = [name for name in names if names.count(name) > 1]
    labels = [
        f"{name} ({number})" if name in twice else name
        for name, number in zip(names, table["id"], strict=True)
    ]
    ax.set_yticks(places, labels)
    ax.tick_params(axis="y", length=0, pad=6)
    ax.spines["left"].set_visible(False)
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.set_xscale("log")
    low = min(0.01, *(float(each.min()) for each in values))
    ax.set_xlim(10 ** np.floor(np.log10(low)), 1)
    ax.minorticks_off()
    first = ", first step" if found.data.sizes["step"] > 1 else ""
    ax.set_xlabel(f"probability{first} (KL {float(found.data.kl[0]):.2g} nats)")


def _divergence(found: Comparison, ax: Axes) -> None:
    """KL at each step."""
    kl = found.data.kl.values
    ax.bar(np.arange(len(kl)), kl, 0.72, color=ACCENT)
    ax.set_xlim(-0.6, max(len(kl), 4) - 0.4)
    ax.set_xlabel("step")
    ax.set_ylabel("KL (nats)")
    layer_ticks(ax, range(len(kl)))


def _mass(data: xr.Dataset) -> xr.DataArray | None:
    """Change of the attention to frames [layer, key_group], of the last query group."""
    mass = data.get("attention_mass")
    if mass is None or not {"layer", "key_group"} <= set(mass.dims):
        return None
    frames = frame_labels(mass.key_group.values)
    if len(frames) < 2 or mass.sizes["layer"] < 2 or "position" in mass.dims:
        return None
    mass = mass.sel(key_group=frames)
    if "query_group" in mass.dims:
        groups = mass.query_group.values.tolist()
        chosen = "last" if "last" in groups else groups[-1]
        mass = mass.sel(query_group=chosen).assign_attrs(query=chosen)
    rest = [dim for dim in mass.dims if dim not in ("layer", "key_group")]
    return mass.mean(rest, keep_attrs=True).transpose("layer", "key_group")


def _attention(mass: xr.DataArray, ax: Axes) -> None:
    """Attention to each frame by layer, signed."""
    high = float(np.nanmax(np.abs(mass.values))) or 1.0
    mesh = ax.pcolormesh(
        mass.values, cmap=signed(), vmin=-high, vmax=high, edgecolors="face", lw=0.2
    )
    ax.invert_yaxis()
    labels = [short(str(label)) for label in mass.key_group.values]
    for axis, names in ((ax.xaxis, labels), (ax.yaxis, [str(n) for n in mass.layer.values])):
        shown = range(0, len(names), -(-len(names) // 10))
        axis.set_ticks([place + 0.5 for place in shown], [names[place] for place in shown])
        axis.set_tick_params(length=0)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.set_xlabel("frame")
    ax.set_ylabel("layer")
    query = mass.attrs.get("query")
    color_bar(ax, mesh, "change of attention" + (f"\nfrom {query}" if query else ""))


def profiles(data: xr.Dataset, most: int = 4) -> dict[str, xr.DataArray]:
    """Mean size of the change by layer, relative to its largest layer, of the first variables."""
    found = {}
    for name, array in data.items():
        if "layer" not in array.dims or array.sizes["layer"] < 2 or name == "kept":
            continue
        rest = [dim for dim in array.dims if dim != "layer"]
        size = abs(array).mean(rest)
        if float(size.max()) > 0:
            found[str(name)] = size / size.max()
    return dict(list(found.items())[:most])


def _profiles(found: dict[str, xr.DataArray], ax: Axes) -> None:
    """Where each variable changed most."""
    for (name, size), style in zip(found.items(), LINES.values(), strict=False):
        ax.plot(size.layer, size, label=name.replace("_", " "), mew=0, clip_on=False, **style)
    ax.set_ylim(0, 1)
    ax.set_xlabel("layer")
    ax.set_ylabel("mean |change|\n(of its largest)")
    layer_ticks(ax, next(iter(found.values())).layer.values)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.1)
