"""How paper figures look: column widths, type, colours that also read in grey, saving."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

SINGLE, DOUBLE = 3.3, 6.9  # inches: one column of a two-column paper, and both

INK, QUIET, FAINT = "#1c1b19", "#6f6a63", "#d9d5cf"
ACCENT, DEEP, PALE = "#c2410c", "#12395b", "#5d9dc4"

# Lightness falls from one to the next, and each has its own marker and dashes.
LINES: dict[str, dict[str, Any]] = {
    "attention": {"color": ACCENT, "marker": "o", "linestyle": "-"},
    "norm": {"color": DEEP, "marker": "s", "linestyle": (0, (5, 1.6))},
    "uniform": {"color": PALE, "marker": "^", "linestyle": (0, (5, 1.4, 1, 1.4))},
    "random": {"color": "#8d8880", "marker": "D", "linestyle": (0, (1.2, 1.2))},
}
PARTS = {"embedding": "#cfc9c0", "attention": ACCENT, "mlp": DEEP}
PART_NAMES = {"embedding": "embedding", "attention": "attention", "mlp": "MLP"}


@contextmanager
def paper() -> Iterator[None]:
    """Draw in the style of a paper; matplotlib's own settings are as before afterwards.

    Works as a context and as a decorator of a function that draws.
    """
    import matplotlib

    settings: dict[Any, Any] = {
        "font.family": _fonts(),
        "font.size": 7.5,
        "axes.titlesize": 7.5,
        "axes.titleweight": "normal",
        "axes.titlelocation": "left",
        "axes.labelsize": 7.5,
        "axes.labelcolor": INK,
        "axes.edgecolor": QUIET,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.labelsize": 6.8,
        "ytick.labelsize": 6.8,
        "xtick.color": QUIET,
        "ytick.color": QUIET,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "xtick.minor.visible": False,
        "text.color": INK,
        "lines.linewidth": 1.2,
        "lines.markersize": 3.4,
        "legend.fontsize": 6.8,
        "legend.frameon": False,
        "legend.handlelength": 2.6,
        "axes.unicode_minus": True,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
        "svg.fonttype": "none",
        "hatch.linewidth": 0.5,
    }
    with matplotlib.rc_context(settings):
        yield


def axes(ax: Axes | None, width: float = SINGLE, height: float = 2.0) -> Axes:
    """The given axes, or those of a new figure of a size in inches."""
    return ax if ax is not None else new_figure(width, height).add_subplot()


def figure_of(ax: Axes) -> Figure:
    """The whole figure that axes are in, also where they are in a part of it."""
    figure: Any = ax.figure
    return figure.figure


def new_figure(width: float = SINGLE, height: float = 2.0) -> Figure:
    """An empty figure of a size in inches that lays itself out; not registered with pyplot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)  # type: ignore[union-attr]
    return figure


def panel_labels(panels: Iterable[Any]) -> None:
    """Bold a, b, c at the top left of axes or subfigures, in their order."""
    for letter, panel in zip("abcdefghijklmnopqrstuvwxyz", panels, strict=False):
        if hasattr(panel, "set_title"):
            title = panel.get_title(loc="left")
            panel.set_title(title, loc="left")
            panel.annotate(
                letter,
                (0, 1),
                (-20, 4),
                xycoords="axes fraction",
                textcoords="offset points",
                weight="bold",
                size=9,
                annotation_clip=False,
            )
        else:
            panel.suptitle(letter, weight="bold", size=9, x=0.002, ha="left")


def save(figure: Figure, stem: str | Path) -> list[Path]:
    """Write `stem`.pdf (vector, fonts embedded as TrueType) and `stem`.png (300 dpi).

    The page is exactly as wide as the figure, so that it fits its column without scaling.
    """
    paths = [Path(f"{stem}.pdf"), Path(f"{stem}.png")]
    with paper(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(paths[0], metadata={"CreationDate": None})
        layout = figure.get_layout_engine()
        figure.set_layout_engine("none")  # places are found; finding them again takes as long
        figure.savefig(paths[1], dpi=300, metadata={"Software": None})
        figure.set_layout_engine(layout)
    return paths


@cache
def heat() -> Colormap:
    """White to dark brown through orange; lightness falls all the way, so it reads in grey."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = ["#ffffff", "#fcdcc0", "#f4a46a", "#d9601f", "#9a3108", "#4a1502"]
    return LinearSegmentedColormap.from_list("probe_heat", stops)


@cache
def signed() -> Colormap:
    """Blue (takes away) over white to orange (adds)."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = ["#12395b", "#5d9dc4", "#ffffff", "#f08a4b", "#9a3108"]
    return LinearSegmentedColormap.from_list("probe_signed", stops)


@cache
def _fonts() -> list[str]:
    from matplotlib import font_manager

    there = set(font_manager.get_font_names())
    wanted = ["Arial", "Helvetica", "Liberation Sans", "DejaVu Sans"]
    return [name for name in wanted if name in there]
