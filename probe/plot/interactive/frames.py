"""Attention by layer and frame, and the frames themselves under a slider."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.plot.interactive.look import SCALE, TWO_SIDED, finish
from probe.plot.tables import mass_by_frame, short

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

    from probe.models.layout import Layout
    from probe.video import Clip

MARK = {
    "type": "rect",
    "xref": "x2",
    "yref": "y2",
    "line": {"color": "#1c1b19", "width": 2},
    "fillcolor": "rgba(0,0,0,0)",
    "opacity": 1,
}


def attention_map(mass: xr.DataArray, query: str = "last") -> go.Figure:
    """Attention of one query group by layer and frame, mean over heads.

    Args:
        mass: attention_mass [layer, head, query_group, key_group], 0 to 1.
        query: the query group that looks.
    """
    import plotly.graph_objects as go

    table = mass_by_frame(mass, query)
    names = [short(str(label)) for label in table.key_group.values]
    figure = go.Figure(_heat(table.values, names, table.layer.values, "share of<br>attention"))
    _axes(figure)
    return finish(figure, f"Attention from {query}", 380)


def frame_player(
    clip: Clip, layout: Layout, values: xr.DataArray, layer: int | None = None
) -> go.Figure:
    """A frame tinted by a value of each token, beside the sum by layer and frame.

    Args:
        clip: the frames the model was given.
        layout: where each token was seen.
        values: [layer, position], such as attention received or contributions.
        layer: layer of the tint; the one with the largest sum over the video by default.

    The slider moves through the frames; the map marks the layer and the frame that are shown.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    values = values.transpose("layer", "position")
    layers = values.layer.values
    groups = layout.frames
    sums = np.stack(
        [np.nansum(values.values[:, layout.group == g], axis=1) for g in range(len(groups))], 1
    )
    row = int(sums.sum(1).argmax()) if layer is None else list(layers).index(layer)
    column = [next(g for g, f in enumerate(groups) if n in f) for n in range(len(clip.seconds))]
    start = column.index(int(sums[row].argmax()))
    pictures = _tinted(clip, layout, values.values[row].astype(float))
    figure = make_subplots(1, 2, column_widths=[0.36, 0.64], horizontal_spacing=0.1)
    figure.add_trace(go.Image(source=pictures[start], hoverinfo="skip"), 1, 1)
    names = [short(label) for label in layout.groups]
    unit = values.attrs.get("units", "1")
    figure.add_trace(_heat(sums, names, layers, "sum" if unit == "1" else unit), 1, 2)
    figure.frames = [
        go.Frame(
            data=[go.Image(source=picture)],
            traces=[0],
            name=str(number),
            layout={"shapes": [_mark(column[number], row)]},
        )
        for number, picture in enumerate(pictures)
    ]
    slider = _slider(clip, start)
    figure.update_layout(shapes=[_mark(column[start], row)], sliders=[slider])
    figure.update_xaxes(visible=False, row=1, col=1)
    figure.update_yaxes(visible=False, row=1, col=1)
    _axes(figure, row=1, col=2)
    name = str(values.name or "values").replace("_", " ")
    return finish(figure, f"{name}; the frame is tinted by layer {layers[row]}", 430)


def _heat(values: np.ndarray, columns: list[str], layers: np.ndarray, title: str) -> go.Heatmap:
    import plotly.graph_objects as go

    signed = bool(np.nanmin(values) < 0)
    high = float(np.nanmax(np.abs(values)))
    return go.Heatmap(
        z=values,
        x=columns,
        y=[str(layer) for layer in layers],
        colorscale=TWO_SIDED if signed else SCALE,
        zmin=-high if signed else 0,
        zmax=high,
        colorbar={"title": {"text": title}, "thickness": 12, "outlinewidth": 0},
        hovertemplate="layer %{y}, frame %{x}<br>%{z:.3g}<extra></extra>",
        xgap=1,
        ygap=1,
    )


def _axes(figure: go.Figure, **where: Any) -> None:
    figure.update_xaxes(title="frame", type="category", **where)
    figure.update_yaxes(title="layer", type="category", autorange="reversed", **where)


def _tinted(clip: Clip, layout: Layout, vector: np.ndarray) -> list[str]:
    from PIL import Image

    from probe.plot.frames import span, tint
    from probe.plot.style import heat, signed

    painted = layout.paint(vector)
    low, high = span(painted)
    colors = signed() if low < 0 else heat()
    found = []
    for frame, values in zip(clip.frames, painted, strict=True):
        picture = (tint(frame, values, low, high, colors) * 255).round().astype(np.uint8)
        image = Image.fromarray(picture)
        image.thumbnail((320, 320))
        buffer = io.BytesIO()
        image.save(buffer, "png")
        found.append(f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}")
    return found


def _slider(clip: Clip, start: int) -> dict[str, Any]:
    show = {
        "mode": "immediate",
        "frame": {"duration": 0, "redraw": True},
        "transition": {"duration": 0},
    }
    steps = [
        {"args": [[str(number)], show], "label": f"{number}: {second:.2f} s", "method": "animate"}
        for number, second in enumerate(clip.seconds)
    ]
    place = {"currentvalue": {"prefix": "frame "}, "pad": {"t": 40}, "ticklen": 3}
    return {"active": start, "steps": steps, **place}


def _mark(column: int, row: int) -> dict[str, Any]:
    edges = {"x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
    return MARK | edges
