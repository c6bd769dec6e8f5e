"""The frame, tinted, beside the map of attention by layer and frame, under one slider."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.plot.interactive.look import SCALE, finish
from probe.plot.tables import mass_by_frame, overlays, short

LINE = {"line": {"color": "#1c1b19", "width": 2}, "fillcolor": "rgba(0,0,0,0)", "opacity": 1}

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from probe.report.findings import Findings


def attention_map(findings: Findings, query: str = "last", layer: int | None = None) -> go.Figure:
    """A frame tinted by the attention its tokens receive, beside attention by layer and frame.

    Args:
        findings: what to draw from.
        query: the query group that looks.
        layer: layer of the tint; the one that looks at the video most by default.

    The slider moves through the frames; the map marks the layer and the frame that are shown.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    table = mass_by_frame(findings.data.attention_mass, query)
    if layer is None:
        layer = int(table.sum("key_group").idxmax("layer"))
    names = [short(str(label)) for label in table.key_group.values]
    groups = findings.layout.video.frames if findings.layout.video is not None else ()
    group = [
        next(g for g, f in enumerate(groups) if n in f) for n in range(len(findings.clip.seconds))
    ]
    pictures = _tinted(findings, query, layer)
    row = list(table.layer.values).index(layer)
    start = group.index(int(table.sel(layer=layer).argmax("key_group")))
    figure = make_subplots(1, 2, column_widths=[0.36, 0.64], horizontal_spacing=0.1)
    figure.add_trace(go.Image(source=pictures[start], hoverinfo="skip"), 1, 1)
    figure.add_trace(
        go.Heatmap(
            z=table.values,
            x=names,
            y=[str(number) for number in table.layer.values],
            colorscale=SCALE,
            zmin=0,
            colorbar={
                "title": {"text": "share of<br>attention"},
                "thickness": 12,
                "outlinewidth": 0,
            },
            hovertemplate="layer %{y}, frame %{x}<br>%{z:.3g} of attention<extra></extra>",
            xgap=1,
            ygap=1,
        ),
        1,
        2,
    )
    figure.frames = [
        go.Frame(
            data=[go.Image(source=picture)],
            traces=[0],
            name=str(number),
            layout={"shapes": [_box(group[number], row)]},
        )
        for number, picture in enumerate(pictures)
    ]
    figure.update_layout(shapes=[_box(group[start], row)], sliders=[_slider(findings, start)])
    figure.update_xaxes(visible=False, row=1, col=1)
    figure.update_yaxes(visible=False, row=1, col=1)
    figure.update_xaxes(title="frame", type="category", row=1, col=2)
    figure.update_yaxes(title="layer", type="category", autorange="reversed", row=1, col=2)
    return finish(figure, f"Attention from {query}; frame tinted by layer {layer}", 430)


def _tinted(findings: Findings, query: str, layer: int) -> list[str]:
    from PIL import Image

    from probe.plot.frames import span, tint
    from probe.plot.style import heat

    vector = overlays(findings)[f"attention from {query}"].sel(layer=layer).values
    painted = findings.layout.paint(vector.astype(float))
    low, high = span(painted)
    found = []
    for frame, values in zip(findings.clip.frames, painted, strict=True):
        picture = Image.fromarray((tint(frame, values, low, high, heat()) * 255).astype(np.uint8))
        picture.thumbnail((320, 320))
        buffer = io.BytesIO()
        picture.save(buffer, "png")
        found.append(f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}")
    return found


def _slider(findings: Findings, start: int) -> dict[str, Any]:
    show = {
        "mode": "immediate",
        "frame": {"duration": 0, "redraw": True},
        "transition": {"duration": 0},
    }
    steps = [
        {"args": [[str(number)], show], "label": f"{number}: {second:.2f} s", "method": "animate"}
        for number, second in enumerate(findings.clip.seconds)
    ]
    return {
        "active": start,
        "steps": steps,
        "currentvalue": {"prefix": "frame "},
        "pad": {"t": 40},
        "ticklen": 3,
    }


def _box(column: int, row: int) -> dict[str, Any]:
    edges = {"x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
    return {"type": "rect", "xref": "x2", "yref": "y2", **edges, **LINE}
