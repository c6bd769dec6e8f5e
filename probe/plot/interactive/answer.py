"""What the answer is made of, and what each generated token owes the video."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probe.plot.interactive.look import every, finish
from probe.plot.style import ACCENT, FAINT, PART_NAMES, PARTS
from probe.plot.tables import contribution_by_source, frame_labels, printable, short

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import xarray as xr


def contributions(data: xr.Dataset, of: str = "the margin") -> go.Figure:
    """Bars by layer and part, and by the frame or text that attention read from, in logits.

    Args:
        data: has contributions [layer, part] and contributions_attention
            [layer, head, source_group].
        of: what they add up to.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    parts = data.contributions
    sources = contribution_by_source(data.contributions_attention)
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
    figure.update_xaxes(title="layer", tickvals=every(parts.layer.values), row=1, col=1)
    figure.update_xaxes(title="frame (or text) that attention read", type="category", row=1, col=2)
    figure.update_yaxes(title=f"adds to {of} (logits)", row=1, col=1)
    total = float(parts.sum())
    return finish(figure, f"What adds to {of}: all bars on the left sum to {total:.2f} logits")


def generated_tokens(tokens: pd.DataFrame) -> go.Figure:
    """Visual influence of each generated token in nats, with its other numbers on hover.

    Args:
        tokens: columns step, token, influence and entropy (nats), video_mass (0 to 1).
    """
    import plotly.graph_objects as go

    shown = tokens["token"].map(printable)
    figure = go.Figure(
        go.Bar(
            x=tokens["step"],
            y=tokens["influence"],
            marker_color=ACCENT,
            customdata=np.stack([shown, tokens["entropy"], tokens["video_mass"]], -1),
            hovertemplate="“%{customdata[0]}”<br>influence %{y:.2f} nats"
            "<br>entropy %{customdata[1]:.2f} nats"
            "<br>attention to video %{customdata[2]:.1%}<extra></extra>",
        )
    )
    words = [printable(token, 14) for token in tokens["token"]]
    figure.update_xaxes(tickvals=tokens["step"], ticktext=words)
    figure.update_yaxes(title="visual influence (nats)")
    return finish(figure, "How far each token depends on the video", 340)
