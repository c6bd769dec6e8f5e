"""What the plotly figures share: colours, ticks and layout."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go

SCALE = [
    [0, "#ffffff"],
    [0.2, "#fcdcc0"],
    [0.4, "#f4a46a"],
    [0.6, "#d9601f"],
    [0.8, "#9a3108"],
    [1, "#4a1502"],
]
TWO_SIDED = [
    [0, "#12395b"],
    [0.25, "#5d9dc4"],
    [0.5, "#ffffff"],
    [0.75, "#f08a4b"],
    [1, "#9a3108"],
]


def every(values: Iterable, most: int = 10) -> list[int]:
    """Every n-th value, so that about `most` remain: where the ticks go."""
    shown = list(values)
    return [int(value) for value in shown[:: -(-len(shown) // most)]]


def finish(figure: go.Figure, title: str, height: int = 400) -> go.Figure:
    """Plain axes, a title at the left, the legend under it."""
    figure.update_layout(
        template="simple_white",
        title={
            "text": title,
            "font": {"size": 15},
            "x": 0,
            "xref": "paper",
            "y": 0.97,
            "yanchor": "top",
        },
        font={"size": 12},
        height=height,
        margin={"l": 60, "r": 60, "t": 86, "b": 50},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left"},
    )
    return figure
