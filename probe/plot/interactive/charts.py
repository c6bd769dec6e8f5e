"""Contributions, ablation curves and generated tokens, for reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probe.plot.interactive.look import finish
from probe.plot.style import ACCENT, FAINT, LINES, PART_NAMES, PARTS, QUIET
from probe.plot.tables import (
    SCORES,
    contribution_by_source,
    frame_labels,
    printable,
    short,
    title_of,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from probe.report.findings import Findings

DASHES = {"attention": "solid", "norm": "dash", "uniform": "dashdot", "random": "dot"}
SYMBOLS = {"attention": "circle", "norm": "square", "uniform": "triangle-up", "random": "diamond"}


def contributions(findings: Findings) -> go.Figure:
    """Bars by layer and part, and by the frame or text that attention read from, in logits."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    parts = findings.data.contributions
    sources = contribution_by_source(findings.data.contributions_attention)
    labels = [str(label) for label in sources.source_group.values]
    frames = set(frame_labels(labels))
    figure = make_subplots(1, 2, horizontal_spacing=0.1)
    for name in map(str, parts.part.values):
        figure.add_trace(
            go.Bar(
                x=parts.layer.values,
                y=parts.sel(part=name).values,
                name=PART_NAMES.get(name, name),
                marker_color=PARTS.get(name, FAINT),
                hovertemplate="layer %{x}<br>%{y:.3f} logits",
            ),
            1,
            1,
        )
    figure.add_trace(
        go.Bar(
            x=[short(label) for label in labels],
            customdata=labels,
            y=sources.values,
            marker_color=[ACCENT if label in frames else "#b9b3aa" for label in labels],
            showlegend=False,
            hovertemplate="%{customdata}<br>%{y:.3f} logits<extra></extra>",
        ),
        1,
        2,
    )
    of = title_of(findings.target, findings.versus)
    figure.update_xaxes(title="layer", tickvals=_every(parts.layer.values), row=1, col=1)
    figure.update_xaxes(title="frame (or text) that attention read", type="category", row=1, col=2)
    figure.update_yaxes(title=f"adds to {of} (logits)", row=1, col=1)
    total = float(parts.sum())
    return finish(figure, f"What adds to {of}: all bars on the left sum to {total:.2f} logits")


def curves(findings: Findings) -> go.Figure:
    """Margin against visual tokens kept, and with all of them gone from a layer on."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    kept, drop = findings.redundancy["kept"], findings.redundancy["drop_from_layer"]
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.05)
    names = [s for s in SCORES if s in set(kept["score"])]
    for name in names + sorted(set(kept["score"]) - set(names)):
        table = kept[kept["score"] == name].sort_values("tokens")
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
            ),
            1,
            1,
        )
    figure.add_trace(
        go.Scatter(
            x=drop["layer"],
            y=drop["margin"],
            customdata=drop["answer"].map(printable),
            line={"color": ACCENT},
            mode="lines+markers",
            showlegend=False,
            hovertemplate="gone from layer %{x} on<br>%{y:.2f} logits<br>“%{customdata}”"
            "<extra></extra>",
        ),
        1,
        2,
    )
    levels: Any = (
        ("full", findings.full_margin, "dot"),
        ("no clip", findings.blind_margin, "dash"),
    )
    for name, level, dash in levels:
        figure.add_hline(
            level, line={"color": QUIET, "width": 1, "dash": dash}, annotation_text=name
        )
    of = title_of(findings.target, findings.versus)
    counts = sorted(set(kept["tokens"]) - {0})
    ticks = {"tickvals": counts, "ticktext": [f"{count:,}" for count in counts]}
    figure.update_xaxes(
        title="visual tokens kept", type="log", minor_ticks="", row=1, col=1, **ticks
    )
    layers = _every(drop["layer"].to_numpy()[:-1])
    ends = {"tickvals": [*layers, drop["layer"].iloc[-1]], "ticktext": [*map(str, layers), "none"]}
    figure.update_xaxes(title="video gone from this layer on", row=1, col=2, **ends)
    figure.update_yaxes(title=f"{of} (logits)", row=1, col=1)
    return finish(figure, "How much of the video the answer needs")


def generated_tokens(findings: Findings) -> go.Figure:
    """Visual influence of each generated token in nats, with its other numbers on hover."""
    import plotly.graph_objects as go

    tokens = findings.tokens
    figure = go.Figure(
        go.Bar(
            x=tokens["step"],
            y=tokens["influence"],
            marker_color=ACCENT,
            customdata=np.stack(
                [tokens["token"].map(printable), tokens["entropy"], tokens["video_mass"]], -1
            ),
            hovertemplate="“%{customdata[0]}”<br>influence %{y:.2f} nats"
            "<br>entropy %{customdata[1]:.2f} nats<br>attention to video %{customdata[2]:.1%}<extra></extra>",
        )
    )
    words = [printable(token, 14) for token in tokens["token"]]
    figure.update_xaxes(tickvals=tokens["step"], ticktext=words)
    figure.update_yaxes(title="visual influence (nats)")
    return finish(figure, "How far each token depends on the video", 320)


def _every(layers: np.ndarray, most: int = 10) -> list[int]:
    return [int(layer) for layer in layers[:: -(-len(layers) // most)]]
