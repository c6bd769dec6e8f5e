"""What diagnoses read from runs, drawn: of one clip, or means over many with their intervals.

Each takes the values of its diagnosis by name, as `measure` gives them; an array may be a Dataset
of mean, low and high instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.plot.series import STYLES, curve, has_interval, legend, level, matrix, middle, series
from probe.plot.style import ACCENT, DEEP, DOUBLE, PALE, SINGLE, new_figure, paper

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

Shown = Mapping[str, Any]
VARIANTS = {"nothing": "all tokens", "first": "without the first", "sinks": "without sinks"}
SETS = {"all": "all", "image": "video", "text": "text", "last": "last"}


@paper()
def types_by_layer(values: Shown, *, width: float = DOUBLE) -> Figure:
    """`AttentionTypes`: vision's share of the response's attention, and entropies, by layer."""
    figure = new_figure(width, 2.0)
    share, spread = figure.subplots(1, 2)
    series(share, values["vision_share"], "layer", VARIANTS, bands=1)
    share.set(xlabel="layer", ylabel="share of attention\nthat goes to vision", ylim=(0, 1))
    level(share, 0.2, "20 %")
    legend(share, 3)
    at = {"left_out": "nothing", "quantity": "entropy", "target": "response"}
    inside = values["attention_by_type"].sel(at)
    series(spread, inside, "layer", {"vision": "inside vision", "instruction": "inside text"})
    spread.set(xlabel="layer", ylabel="entropy (nats)")
    spread.set_ylim(0)
    legend(spread)
    return figure


@paper()
def rank_agreement(values: Shown, *, width: float = DOUBLE) -> Figure:
    """`RankStability`: tau between layers over all tokens, within and between frames."""
    figure = new_figure(width, 0.36 * width)
    panels = figure.subplots(1, 3, sharey=True)
    named = {
        "tau": "all tokens",
        "tau_within_frames": "within frames",
        "tau_between_frames": "between frames",
    }
    for ax, (name, title) in zip(panels, named.items(), strict=True):
        label = "Kendall's tau" if ax is panels[-1] else ""
        matrix(ax, middle(values[name]), label, bounds=(-1, 1))
        ax.set_aspect("equal")
        ax.set_title(title)
        ax.set_xlabel("layer")
    panels[0].set_ylabel("layer")
    return figure


@paper()
def attention_by_place(values: Shown, *, width: float = DOUBLE) -> Figure:
    """`AttentionShift`: attention by place in the clip, and how concentrated it is by layer."""
    figure = new_figure(width, 2.0)
    shift, share = figure.subplots(1, 2)
    series(shift, values["shift"], "place", SETS)
    level(shift, 1, "mean")
    shift.set_ylim(0)
    shift.set(xlabel="place in the clip (0 first, 1 last)", ylabel="attention received\n(1: mean)")
    legend(shift, 4)
    curve(share, values["c20"], "layer", "last query, all tokens", STYLES[0])
    curve(share, values["c20_frames"], "layer", "within frames", STYLES[1])
    level(share, 0.2, "even")
    tower = values.get("c20_cls", np.nan)
    name = "CLS" if np.isfinite(tower) else "tower"
    tower = tower if np.isfinite(tower) else values.get("c20_received", np.nan)
    if np.isfinite(tower):
        level(share, float(tower), name)
    share.set(xlabel="layer", ylabel="mass in the top 20 %", ylim=(0, 1))
    legend(share)
    return figure


@paper()
def retention_by_block(values: Shown, *, width: float = SINGLE) -> Figure:
    """`Blackout`: what is retained of the margin where text sees no vision in a block of layers.

    Args:
        values: of one clip; for many, {"retention": retentions(pooled)} of the pooled table.
        width: inches.
    """
    figure = new_figure(width, 2.0)
    ax = figure.subplots()
    retention = values["retention"]
    mean = middle(retention)
    blocks = mean["block"].values
    places = np.arange(len(blocks))
    ax.plot(places, mean.values, "o", color=ACCENT, mew=0, ms=4.6, zorder=3)
    ax.vlines(places, 0, mean.values, color=ACCENT, lw=1.2, zorder=2)
    if has_interval(retention):
        low, high = retention["low"].values, retention["high"].values
        ax.vlines(places, low, high, color=DEEP, lw=0.8, zorder=4)
    for at, name in ((0, "blind"), (1, "full")):
        level(ax, at, name)
    wide = len(blocks) > 1 and blocks[1] - blocks[0] > 1
    names = [f"{a}-{b - 1}" for a, b in pairwise(blocks)] + [f"{blocks[-1]}-"]
    ax.set_xticks(places, names if wide else [str(block) for block in blocks])
    ax.set(xlabel="layers in which text sees no video", ylabel="margin retained")
    ax.set_xlim(-0.5, len(blocks) - 0.5)
    return figure


def retentions(pooled: pd.DataFrame) -> xr.Dataset:
    """Mean, low and high [block] of the rows retention_block_LAYER of a pooled `Blackout`."""
    import xarray as xr

    start = "retention_block_"
    rows = [row for row in pooled.to_dict("records") if row["name"].startswith(start)]
    blocks = [int(row["name"].removeprefix(start)) for row in rows]
    columns = {"mean": "value", "low": "low", "high": "high"}
    found = {name: ("block", [row[of] for row in rows]) for name, of in columns.items()}
    return xr.Dataset(found, {"block": blocks})


@paper()
def spectrum_by_layer(values: Shown, *, width: float = DOUBLE) -> Figure:
    """`Spectrum`: energy in the low half of the frequencies, beside that of white noise."""
    figure = new_figure(width, 2.0)
    panels = {
        "space": ("white_noise", "over the frame"),
        "time": ("time_white_noise", "over time"),
    }
    both = figure.subplots(1, 2, sharey=True)
    for ax, (axis, (noise, title)) in zip(both, panels.items(), strict=True):
        several = values["spectrum"].sel(axis=axis)
        mean = middle(several)
        curve(ax, several.sel(statistic="pooled"), "layer", "all channels", STYLES[0])
        curve(ax, several.sel(statistic="median"), "layer", "median channel", STYLES[1])
        low, high = (mean.sel(statistic=end).values for end in ("low", "high"))
        ax.fill_between(mean["layer"].values, low, high, color=PALE, alpha=0.25, lw=0, zorder=0)
        if np.isfinite(values.get(noise, np.nan)):
            level(ax, values[noise], "noise")
        ax.set_title(title, loc="right")
        ax.set_ylim(0, 1)
        ax.set_xlabel("layer")
        legend(ax)
    both[0].set_ylabel("energy in the low half\nof the frequencies")
    return figure


@paper()
def norms_by_layer(values: Shown, *, width: float = DOUBLE) -> Figure:
    """`NormTail`: the histogram of norms by layer, and the tail after pooling."""
    figure = new_figure(width, 2.0)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    histogram = middle(values["norm_histogram"]).transpose("layer", "log2_norm")
    edges = histogram["log2_norm"].values
    step = edges[1] - edges[0]
    matrix(left, histogram, "share of visual tokens")
    ticks = np.arange(-4, 5, 2)
    left.set_xticks((ticks - edges[0]) / step + 0.5, [f"{tick:g}" for tick in ticks])
    left.set(xlabel="log2 (norm / median)", ylabel="layer")
    tail = values["pooled_tail"].sel(tail="p99/p50")
    curve(right, tail, "window", "layer 0", STYLES[0])
    right.set_xticks(middle(tail).dropna("window")["window"].values)
    right.set_ylim(0)
    right.set(xlabel="pooled window (cells a side)", ylabel="p99 / p50 of norms")
    return figure


@paper()
def ratio_by_head(values: Shown, *, width: float = SINGLE) -> Figure:
    """`HeadRatio`: text's attention to the video over that to text, of every head."""
    ratio = middle(values["head_ratio"])
    figure = new_figure(width, float(np.clip(0.7 + 0.17 * ratio.sizes["layer"], 1.6, 4.2)))
    ax = figure.subplots()
    logs = ratio.copy(data=np.log10(np.clip(ratio.values, 1e-6, None)))
    reach = max(1.0, float(np.quantile(np.abs(logs.values), 0.95)))
    matrix(ax, logs, "log10 (video / text)", bounds=(-reach, reach))
    ax.set(xlabel="head", ylabel="layer")
    return figure


@paper()
def states_by_layer(rank: Shown, adjacent: Shown, cka: Shown, *, width: float = DOUBLE) -> Figure:
    """`EffectiveRank`, `AdjacentFrames` and `LayerCKA` side by side."""
    figure = new_figure(width, 2.0)
    ranks, alike, layers = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
    series(ranks, rank["effective_rank"], "layer", {"raw": "raw", "centred": "centred"})
    ranks.set_ylim(0)
    ranks.set(xlabel="layer", ylabel="effective rank")
    legend(ranks)
    pairs = middle(adjacent["frame_similarity"]).mean("pair")
    curve(alike, pairs, "layer", "adjacent", STYLES[0])
    curve(alike, adjacent["any_two"], "layer", "any two", STYLES[3])
    alike.set_ylim(min(0, float(middle(adjacent["any_two"]).min())), 1)
    alike.set(xlabel="layer", ylabel="cosine")
    legend(alike)
    matrix(layers, middle(cka["cka"]), "linear CKA", bounds=(0, 1))
    layers.set_aspect("equal")
    layers.set(xlabel="layer", ylabel="layer")
    return figure


@paper()
def flow_of_tokens(values: Shown, *, width: float = DOUBLE) -> Figure:
    """`Concentration`: what each frame brings to the answer, and tokens that bring little."""
    figure = new_figure(width, 1.9)
    frames, layers = figure.subplots(1, 2)
    flow = middle(values["flow_by_frame"])
    places = np.arange(flow.size)
    frames.bar(places, flow.values, color=ACCENT, width=0.78)
    level(frames, 1 / flow.size, "even")
    names = [str(name).removeprefix("frames ").removeprefix("frame ") for name in flow.frame.values]
    step = -(-len(names) // 8)
    frames.set_xticks(places[::step], names[::step])
    frames.set(xlabel="frame", ylabel="share of the flow")
    curve(layers, values["below_max"], "layer", "", STYLES[0])
    layers.set(xlabel="layer", ylabel="tokens below 5 %\nof the greatest", ylim=(0, 1))
    return figure


@paper()
def static_and_bits(static: Shown, bits: Shown, *, width: float = DOUBLE) -> Figure:
    """`StaticFraction` by threshold, and `CodecBits`: bits of an interval against its change.

    Args:
        static: of one clip or many.
        bits: of one clip; of many, a point is the mean over clips of a pair of frames.
        width: inches.
    """
    figure = new_figure(width, 2.0)
    left, right = figure.subplots(1, 2)
    curve(left, static["static"], "tau", "same as the frame before", STYLES[1])
    curve(left, static["removable"], "tau", "removable", STYLES[0])
    left.set(xlabel="cosine above which a place is static", ylabel="share of tokens", ylim=(0, 1))
    legend(left)
    cosine, every = middle(bits["cosine"]).values, middle(bits["bits"]).values / 1000
    right.plot(1 - cosine, every, "o", color=DEEP, mew=0)
    right.set(xlabel="1 - cosine with the next frame", ylabel="kilobits between")
    rho = bits.get("bits_cosine", np.nan)
    if np.isfinite(rho):
        many = ", mean of clips" if has_interval(bits["bits"]) else ""
        right.set_title(f"Spearman with change {-rho:.2f}{many}")
    return figure
