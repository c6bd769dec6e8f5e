"""How much of the video the answer needs: tokens kept, and the layer from which it is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from probe.plot.interactive.look import every, finish
from probe.plot.style import ACCENT, LINES, QUIET
from probe.plot.tables import by_score, printable

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

DASHES = {"attention": "solid", "norm": "dash", "uniform": "dashdot", "random": "dot"}
SYMBOLS = {"attention": "circle", "norm": "square", "uniform": "triangle-up", "random": "diamond"}


def kept_tokens(kept: pd.DataFrame, full: float, blind: float, of: str = "margin") -> go.Figure:
    """Margin against the number of visual tokens kept, one line a score.

    Args:
        kept: columns score, tokens, margin, margin_low, margin_high, answer.
        full, blind: margin with everything, and without any clip, in logits.
        of: what the margin is.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, table in by_score(kept).items():
        spread = {
            "type": "data",
            "symmetric": False,
            "array": table["margin_high"] - table["margin"],
            "arrayminus": table["margin"] - table["margin_low"],
            "visible": bool((table["margin_high"] > table["margin_low"]).any()),
            "thickness": 1,
        }
        figure.add_trace(
            go.Scatter(
                x=table["tokens"],
                y=table["margin"],
                error_y=spread,
                name=name,
                customdata=table["answer"].map(printable),
                line={"color": LINES.get(name, {}).get("color"), "dash": DASHES.get(name)},
                marker={"symbol": SYMBOLS.get(name), "size": 7},
                mode="lines+markers",
                hovertemplate="%{x} tokens<br>%{y:.2f} logits<br>answers “%{customdata}”",
            )
        )
    counts = sorted(set(kept["tokens"]) - {0})
    labels = [f"{count:,}" for count in counts]
    figure.update_xaxes(title="visual tokens kept", type="log", tickvals=counts, ticktext=labels)
    figure.update_yaxes(title=f"{of} (logits)")
    _levels(figure, full, blind)
    return finish(figure, "How many visual tokens the answer needs")


def drop_from_layer(
    table: pd.DataFrame, full: float, blind: float, of: str = "margin"
) -> go.Figure:
    """Margin with all visual tokens gone from a layer on.

    Args:
        table: columns layer, margin, answer; the last row drops nothing.
        full, blind: margin with everything, and without any clip, in logits.
        of: what the margin is.
    """
    import plotly.graph_objects as go

    figure = go.Figure(
        go.Scatter(
            x=table["layer"],
            y=table["margin"],
            customdata=table["answer"].map(printable),
            line={"color": ACCENT},
            mode="lines+markers",
            hovertemplate="gone from layer %{x} on<br>%{y:.2f} logits"
            "<br>answers “%{customdata}”<extra></extra>",
        )
    )
    layers = every(table["layer"].to_numpy()[:-1])
    ends = {"tickvals": [*layers, table["layer"].iloc[-1]], "ticktext": [*map(str, layers), "none"]}
    figure.update_xaxes(title="video gone from this layer on", **ends)
    figure.update_yaxes(title=f"{of} (logits)")
    _levels(figure, full, blind)
    return finish(figure, "Until which layer the answer needs the video")


def _levels(figure: go.Figure, full: float, blind: float) -> None:
    traces: Any = figure.data
    shown = [full, blind, *(float(y) for trace in traces for y in trace.y)]
    pad = 0.06 * (max(shown) - min(shown)) or 1.0
    figure.update_yaxes(range=[min(shown) - pad, max(shown) + pad])
    for name, level, dash in (("full", full, "dot"), ("no clip", blind, "dash")):
        line = {"color": QUIET, "width": 1, "dash": dash}
        figure.add_hline(level, line=line, annotation_text=name)
