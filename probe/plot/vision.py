"""The vision tower in pictures: values of patches on their frames, and how layers differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from probe.errors import ProbeError
from probe.plot.attention import color_bar
from probe.plot.frames import frame_strip, strip_height
from probe.plot.style import DOUBLE, SINGLE, heat, new_figure, paper

LEAST = 1.05  # inches: below, the scale has no room for its label

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from probe.models.layout import Layout


def paint_patches(
    values: xr.DataArray, layout: Layout, clip: int = 0
) -> Float[np.ndarray, "time height width"]:
    """Values of the vision tower's patches as pictures of the size of the given frames.

    Args:
        values: [frame, patch] of a vision capture, one layer and head (or their mean) of it.
        layout: of the example that was run.
        clip: which clip.

    Returns:
        NaN outside what the processor's crop left of a frame.

    Raises:
        ProbeError: other dims, patches without a place, or a clip whose frames are not there.
    """
    if set(values.dims) != {"frame", "patch"}:
        raise ProbeError(
            f"paint_patches: values with dims {', '.join(map(str, values.dims))}; choose a layer "
            "and a head, or their mean, so that frame and patch are left"
        )
    shown = layout.clips[clip]
    if shown.grid is None or not len(shown.grid.row_edges):
        raise ProbeError(f"paint_patches: the tokens of {shown.label} have no place in its frames")
    (top, bottom), (left, right) = (
        (float(edges[0, 0]), float(edges[-1, 1]))
        for edges in (shown.grid.row_edges, shown.grid.col_edges)
    )
    height, width = shown.size
    painted = np.full((shown.frames, height, width), np.nan)
    labels = [str(label) for label in values.coords["frame"].values]
    for label, frames in zip(layout.groups, layout.frames, strict=True):
        own = [frame - shown.first for frame in frames]
        if label not in labels or not 0 <= own[0] < shown.frames:
            continue
        cells = _grid(values.isel(frame=labels.index(label)))
        rows = _cell((np.arange(height) + 0.5) / height, top, bottom, len(cells))
        cols = _cell((np.arange(width) + 0.5) / width, left, right, cells.shape[1])
        picture = cells[rows][:, cols]
        picture[rows < 0] = np.nan
        picture[:, cols < 0] = np.nan
        painted[own] = picture
    if not np.isfinite(painted).any():
        raise ProbeError(f"paint_patches: no frame of {shown.label} among {', '.join(labels)}")
    return painted


@paper()
def patch_strip(
    frames: UInt8[np.ndarray, "time height width 3"],
    values: xr.DataArray,
    layout: Layout,
    *,
    label: str | None = None,
    seconds: Sequence[float] | np.ndarray | None = None,
    clip: int = 0,
    width: float = DOUBLE,
) -> Figure:
    """Values of the tower's patches (CLS attention, norms) as a tint over the frames.

    Args:
        frames: the frames the model was given.
        values: [frame, patch], as for `paint_patches`.
        layout: of the example that was run.
        label: what the values are; the array's description by default.
        seconds: time of each frame; those of the layout by default.
        clip: which clip.
        width: inches.
    """
    shown = layout.clips[clip]
    own = slice(shown.first, shown.first + shown.frames)
    height = max(LEAST, strip_height(len(frames), shown.size[0] / shown.size[1], width))
    return frame_strip(
        frames,
        paint_patches(values, layout, clip),
        seconds=layout.seconds[own] if seconds is None else seconds,
        label=label or str(values.name or "value").replace("_", " "),
        figure=new_figure(width, height),
    )


@paper()
def layer_similarity(similarity: xr.DataArray, *, width: float = SINGLE) -> Figure:
    """CKA and cosine between all pairs of the tower's layers, side by side.

    Args:
        similarity: vision_similarity [measure, vision_layer, other_vision_layer].
        width: inches.
    """
    measures = [str(measure) for measure in similarity.coords["measure"].values]
    layers = similarity.coords["vision_layer"].values
    figure = new_figure(width, 0.54 * width)
    panels = np.atleast_1d(figure.subplots(1, len(measures), sharey=True))
    # Cells are vector paths with an edge of their own colour: no raster, and no seams.
    sides = np.append(layers - 0.5, layers[-1] + 0.5)
    for ax, measure in zip(panels, measures, strict=True):
        values = similarity.sel(measure=measure).values
        low = np.floor(10 * float(np.nanmin(values))) / 10
        mesh = ax.pcolormesh(
            sides, sides, values, cmap=heat(), vmin=min(low, 0.9), vmax=1, edgecolors="face", lw=0.2
        )
        ax.set_aspect("equal")
        ax.set_ylim(sides[-1], sides[0])
        ax.set_title("CKA" if measure == "cka" else measure)
        ax.set_xlabel("layer")
        for axis in (ax.xaxis, ax.yaxis):
            axis.get_major_locator().set_params(integer=True)
        ax.tick_params(length=0)
        color_bar(ax, mesh, "")
    panels[0].set_ylabel("layer")
    return figure


def _grid(frame: xr.DataArray) -> Float[np.ndarray, "row col"]:
    rows, cols = frame.coords["patch_row"].values, frame.coords["patch_col"].values
    there = rows >= 0
    if not there.any():
        raise ProbeError("paint_patches: the rows and columns of these patches are not known")
    cells = np.full((rows.max() + 1, cols.max() + 1), np.nan)
    cells[rows[there], cols[there]] = frame.values[there]
    return cells


def _cell(at: np.ndarray, low: float, high: float, count: int) -> np.ndarray:
    """Number of the cell at fractions of a side; -1 outside of the cells."""
    cell = np.floor((at - low) / (high - low) * count).astype(int)
    return np.where((cell < 0) | (cell >= count), -1, cell)
