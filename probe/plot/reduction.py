"""What a reduction of tokens did: painted on the frames, counted by frame and by layer, as W."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from probe.errors import ProbeError
from probe.plot.attention import layer_ticks
from probe.plot.frames import strip_height
from probe.plot.reduction_strip import draw_strip, remaining
from probe.plot.style import ACCENT, DEEP, DOUBLE, FAINT, PALE, axes, figure_of, new_figure, paper
from probe.plot.tables import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from probe.ablate.reduction.record import Reduction
    from probe.engine.result import Run
    from probe.models.layout import Layout


@paper()
def reduced_frames(
    run: Run,
    frames: UInt8[np.ndarray, "time height width 3"],
    *,
    stage: int | None = None,
    clip: int = 0,
    width: float = DOUBLE,
) -> Figure:
    """What is left of each token, on the frames; tokens by frame; tokens by layer.

    A token that stays shows its picture, one that is gone none; one that was merged fades to its
    share of the outputs. Outputs made of several tokens are outlined at their place.

    Args:
        run: with reductions of tokens.
        frames: the frames the model was given.
        stage: which of `run.reductions`; all of them in a row by default.
        clip: which clip.
        width: inches.

    Raises:
        ProbeError: a run without reductions, or without that one.
    """
    layout, shown = _layout(run), _stages(run, stage)
    height = strip_height(len(frames), frames.shape[1] / frames.shape[2], width)
    figure = new_figure(width, height + 1.9)
    halves: Any = figure.subfigures(2, 1, height_ratios=[height + 0.25, 1.65])
    draw_strip(halves[0].add_subplot(), layout, shown, frames, clip, width)
    left, right = halves[1].subplots(1, 2, width_ratios=[1.6, 1])
    tokens_by_frame(shown, layout, ax=left)
    tokens_by_layer(run, ax=right)
    return figure


@paper()
def tokens_by_frame(
    reductions: Sequence[Reduction], layout: Layout, *, ax: Axes | None = None
) -> Figure:
    """Tokens of each frame before and after, a bar a frame.

    Args:
        reductions: one, or several that follow each other.
        layout: of the run.
        ax: where to draw; a new one-column figure by default.
    """
    ax = axes(ax, height=1.6)
    groups = np.arange(len(layout.groups))
    before = _count(layout, reductions[0].candidates)
    after = _count(layout, remaining(reductions))
    ax.bar(groups, before, 0.78, color=FAINT, label="before")
    ax.bar(groups, after, 0.78, color=ACCENT, label="after")
    step = -(-len(groups) // 16)
    ax.set_xticks(groups[::step], [short(layout.groups[g]) for g in groups[::step]])
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.6, len(groups) - 0.4)
    ax.set_xlabel("frame")
    ax.set_ylabel("tokens")
    _legend(ax)
    return figure_of(ax)


@paper()
def tokens_by_layer(run: Run, *, ax: Axes | None = None) -> Figure:
    """Visual tokens that each decoder layer works on.

    Args:
        run: with its layout.
        ax: where to draw; a new one-column figure by default.
    """
    ax = axes(ax, height=1.6)
    visual = np.isin(_layout(run).role, ("video", "image"))
    count = run.kept.values[:, : len(visual)][:, visual].sum(1)
    layers = np.arange(len(count))
    ax.bar(layers, np.full(len(count), visual.sum()), 0.78, color=FAINT, label="without")
    ax.bar(layers, count, 0.78, color=DEEP, label="with")
    layer_ticks(ax, layers)
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.6, len(count) - 0.4)
    ax.set_xlabel(f"layer ({run.cost.macs / run.cost.macs_full:.0%} of the MACs)")
    ax.set_ylabel("visual tokens")
    _legend(ax)
    return figure_of(ax)


@paper()
def reduction_matrix(one: Reduction, layout: Layout, *, ax: Axes | None = None) -> Figure:
    """The weights W of a reduction: a dot for each entry, its area the weight.

    Args:
        one: of `run.reductions`.
        layout: of the run.
        ax: where to draw; a new one-column figure by default.
    """
    ax = axes(ax, height=2.2)
    w = one.weights
    largest = float(np.abs(w.value).max()) if len(w.value) else 1.0
    single = np.bincount(w.row, minlength=len(w))[w.row] == 1
    area = 9 * np.clip(200 / max(w.size, 200), 0.12, 1)
    for mine, color, label in ((single, PALE, "kept"), (~single, ACCENT, "merged")):
        if mine.any():
            size = area * (0.25 + 0.75 * np.abs(w.value[mine]) / largest)
            ax.scatter(w.col[mine], w.row[mine], size, color=color, lw=0, label=label, zorder=2)
    group = layout.group[one.candidates]
    first = np.flatnonzero(np.diff(group, prepend=group[0] - 1))
    for edge in first:
        ax.axvline(edge - 0.5, color=FAINT, lw=0.4, zorder=0)
    step = -(-len(first) // 8)
    ax.set_xticks(first[::step], [short(layout.groups[group[i]]) for i in first[::step]])
    ax.set_xlim(-0.5, w.size - 0.5)
    ax.set_ylim(len(w) - 0.5, -0.5)
    ax.set_xlabel(f"input token, by frame ({w.size})")
    ax.set_ylabel(f"output ({len(w)})")
    _legend(ax, markerscale=2)
    return figure_of(ax)


def _stages(run: Run, stage: int | None) -> list[Reduction]:
    there = run.reductions
    if not there or (stage is not None and not -len(there) <= stage < len(there)):
        raise ProbeError(f"reduced_frames: stage {stage}; this run has {len(there)} reductions")
    return list(there) if stage is None else [there[stage]]


def _layout(run: Run) -> Layout:
    if run.layout is None:
        raise ProbeError("reduced_frames: a saved run has no layout; run it again")
    return run.layout


def _count(layout: Layout, positions: np.ndarray) -> np.ndarray:
    group = layout.group[positions]
    return np.bincount(group[group >= 0], minlength=len(layout.groups))


def _legend(ax: Axes, **more: Any) -> None:
    where = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 2, "borderaxespad": 0.1}
    ax.legend(**where, handlelength=1, columnspacing=1, handletextpad=0.4, **more)
