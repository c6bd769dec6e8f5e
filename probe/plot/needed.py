"""Figure: how many visual tokens answers need, and how well an estimate ranks clips by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from probe.plot.style import ACCENT, DEEP, DOUBLE, PALE, QUIET, new_figure, paper

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LINES = {
    "needed": ("best of the orders tried", ACCENT, "-"),
    "needed_random": ("random order", DEEP, (0, (5, 1.6))),
}


@paper()
def needed(table: pd.DataFrame, estimate: str = "estimate_none") -> Figure:
    """Left, the share of answers that are kept with so many tokens; right, an estimate's ranks.

    Args:
        table: a row a case, with the numbers of `RedundancyCheck`.
        estimate: the column on the right.
    """
    figure = new_figure(DOUBLE, 2.3)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.25, 1]})
    total = round(float(np.nanmax(table["needed"] + table["removable"])))
    for name, (label, color, dashes) in LINES.items():
        values = np.sort(table[name].dropna().to_numpy(float))
        share = np.arange(1, len(values) + 1) / len(values)
        left.step(
            np.r_[0, values, total], np.r_[0, share, 1],
            where="post", color=color, linestyle=dashes, label=label,
        )  # fmt: skip
    left.set_xscale("symlog", linthresh=1)
    left.set_xlim(0, total)
    left.set_ylim(0, 1.02)
    ticks = [0, *(10**k for k in range(int(np.log10(total)) + 1)), total]
    left.set_xticks(ticks, [str(tick) for tick in ticks])
    left.minorticks_off()
    left.set_xlabel(f"visual tokens kept, of {total}")
    left.set_ylabel("share of answers kept")
    left.legend(loc="lower right")
    known = table.dropna(subset=[estimate, "removable_random"])
    some = known["margin_none"].to_numpy() <= 0
    x, y = (rankdata(known[name]) / len(known) for name in (estimate, "removable_random"))
    right.plot(x[some], y[some], "o", ms=2.6, color=DEEP, alpha=0.7, label="some are needed")
    right.plot(x[~some], y[~some], "o", ms=2.6, color=PALE, mfc="white", label="none is needed")
    right.plot([0, 1], [0, 1], color=QUIET, lw=0.6, zorder=0)
    right.set_xlabel(f"{estimate} (rank)")
    right.set_ylabel("tokens that can go, random (rank)")
    right.set_ylim(-0.05, 1.2)
    right.set_yticks(np.linspace(0, 1, 6))
    right.legend(loc="upper left", ncols=2, columnspacing=1, handletextpad=0.2)
    return figure
