"""Which component of a reduction earns its accuracy, over testbed items.

    python experiments/component_swap.py --out figures

Every method at three fractions of kept tokens, and each of its controls: one component swapped (its
score for a random or an evenly spaced one, its segments for windows of four frames, its merging
for dropping, its budget for equal shares), at exactly the same number of tokens in every layer.
Margin of the right answer over the best other option and share of right answers; paired
differences of method and control, means over items with bootstrap 95 % intervals over clips. A
random control is the mean over several draws, anew for each item.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import probe
from probe import plot, testbed
from probe.diagnose import ComponentSwap, case_of
from probe.diagnose.component_swap import swaps
from probe.plot.style import ACCENT, DEEP, FAINT, QUIET, new_figure

MODEL = "testbed/onevision"
TYPES = ["color", "shape", "direction", "count", "order", "existence"]
ITEMS = 60  # 10 of each type
DRAWS = 3
KEEP = (0.25, 0.1, 0.05)
EQUAL = ("FastV", "PyramidDrop", "FasterVLM", "VisionZip")  # groups have equal shares anyway
OPEN = "#a39c93"  # an interval that holds 0
KINDS = {
    "score=Random()": "score → random",
    "score=Uniform()": "score → even",
    "select=TopK(), score=Random()": "choice → random",
    "segment=Fixed(4)": "segments → fixed",
    "rest=Drop()": "merge → drop",
    "budget=Equal()": "budget → equal",
}


def methods(keep: float) -> dict[str, str]:
    """Each method at a fraction of kept tokens; inner stages in layer 4 of 6, or in thirds. The
    tower has no CLS token: the attention that a patch receives there stands for it.
    """
    stages = [round((1 + keep) / 2, 4), round(keep**0.5, 4), keep]
    seen = "score=EncoderReceived()"
    return {
        "FastV": f"fastv(k=2, keep={keep})",
        "PyramidDrop": f"pyramiddrop(layers=[1, 2, 4], rates={stages})",
        "FasterVLM": f"fastervlm(keep={keep}, {seen})",
        "VisionZip": f"visionzip(keep={keep}, {seen})",
        "VidCom2": f"vidcom2({keep})",
        "DivPrune": f"divprune({keep})",
        "FastVID": f"fastvid({keep}, {seen})",
        "HoliTom": f"holitom({keep}, tau={0.65 if keep <= 0.1 else 0.8}, k=4)",
    }


def described() -> Iterator[tuple[str, float, ComponentSwap]]:
    """Name, fraction and diagnosis of each method."""
    for keep in KEEP:
        for name, text in methods(keep).items():
            yield name, keep, ComponentSwap(text, keep=(keep,), draws=DRAWS)


def measure(model: Any, items: list) -> list[tuple[str, float, pd.DataFrame]]:
    """Name, fraction, and the numbers of each method, a row an item."""
    several = list(described())
    tables: list[list[dict]] = [[] for _ in several]
    for item in items:
        case = case_of(model, item)
        about = {"sample": case.id, "video": case.video}
        found = swaps(case, [one for *_, one in several])
        for rows, values in zip(tables, found, strict=True):
            rows.append(about | values)
    made = zip(several, tables, strict=True)
    return [(name, keep, pd.DataFrame(rows)) for (name, keep, _), rows in made]


def compare(found: list[tuple[str, float, pd.DataFrame]]) -> pd.DataFrame:
    """A row for each method ("" for its control) and each control: means and intervals."""
    rows = []
    for name, keep, table in found:
        pooled = ComponentSwap().pool(table).set_index("name")
        about = {"keep": keep, "method": name, "n": len(table)}
        if not rows:
            rows.append({**about, "keep": 1.0, "method": "", "control": ""})
            rows[0] |= {key: pooled.loc[f"{key}_full", "value"] for key in ("margin", "right")}
        whats = ["", *(c.split(" ", 2)[2] for c in pooled.index if c.startswith("gain "))]
        for what in whats:
            if what == "budget=Equal()" and name in EQUAL:
                continue
            row = {**about, "control": what}
            for value, gain in (("margin", "gain"), ("right", "right_gain")):
                own = pooled.loc[f"{value} {keep:g}"]
                row[value] = own["value"]
                row[f"{value}_low"], row[f"{value}_high"] = own["low"], own["high"]
                if what:
                    won = pooled.loc[f"{gain} {keep:g} {what}"]
                    row[value] -= won["value"]
                    row |= {f"{value}_gain": won["value"]}
                    row |= {f"{value}_gain_low": won["low"], f"{value}_gain_high": won["high"]}
            rows.append(row)
    return pd.DataFrame(rows)


def written(table: pd.DataFrame, command: str) -> str:
    """The tables as Markdown."""
    full = table[table["method"] == ""].iloc[0]
    lines = [
        f"`{command}`; n = {full['n']} items of testbed/onevision, 576 visual tokens.",
        "",
        "Margin of the right answer in logits and share of right answers. Gains are method minus "
        "control, paired by item, with bootstrap 95 % intervals over clips; both have the same "
        f"number of tokens in every layer. Random controls are the mean over {DRAWS} draws, anew "
        "for each item.",
        "",
        f"With every token: margin {full['margin']:.2f}, right {full['right']:.0%}.",
    ]
    head = "| method, control | right | margin | margin gained | right gained |"
    for keep in KEEP:
        lines += ["", f"**{keep:.0%} kept**", "", head, "| --- " * 5 + "|"]
        for _, row in table[table["keep"] == keep].iterrows():
            what = f"**{row['method']}**"
            gains = [" ", " "]
            if row["control"]:
                what = f"{row['method']}, {KINDS[row['control']]}"
                gains = [ranged(row, "margin_gain", "+.2f"), ranged(row, "right_gain", "+.0%")]
            margin = f"{row['margin']:.2f}" if row["control"] else ranged(row, "margin", ".2f")
            cells = [what, f"{row['right']:.0%}", margin, *gains]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def ranged(row: pd.Series, name: str, form: str) -> str:
    """A mean and its interval."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:{form}} [{low:{form}}, {high:{form}}]"


@plot.paper()
def draw(table: pd.DataFrame) -> Figure:
    """What each component gains, a panel a fraction of tokens, a row a control."""
    shown = table[table["control"] != ""]
    order = shown[["method", "control"]].drop_duplicates().reset_index(drop=True)
    first = np.flatnonzero(~order["method"].duplicated())
    figure = new_figure(plot.DOUBLE, 0.165 * len(order) + 0.8)
    panels = figure.subplots(1, len(KEEP), sharex=True, sharey=True)
    for ax, keep in zip(panels, KEEP, strict=True):
        rows = order.merge(shown[shown["keep"] == keep], on=["method", "control"])
        for y, row in rows.iterrows():
            low, high = row["margin_gain_low"], row["margin_gain_high"]
            color = ACCENT if low > 0 else DEEP if high < 0 else OPEN
            ax.plot([low, high], [y, y], color=color, lw=1.2)
            face = "white" if color == OPEN else color
            ax.plot(row["margin_gain"], y, "o", ms=3.2, color=face, mec=color)
            shares = f"{row['right'] + row['right_gain']:.0%} / {row['right']:.0%}"
            beside(ax, shares, (1, 5), y, color=QUIET)
        for y in first[1:]:
            ax.axhline(y - 0.5, color=FAINT, lw=0.6, zorder=0)
        ax.axvline(0, color=QUIET, lw=0.6, zorder=0)
        ax.set_title(f"{keep:.0%} kept")
        beside(ax, "right,\nmethod / control", (1, 5), -1.15, color=QUIET)
        ax.tick_params(axis="y", length=0)
    panels[1].set_xlabel("margin, method − control (logits)")
    panels[0].set_yticks(range(len(order)), [KINDS[what] for what in order["control"]])
    panels[0].set_ylim(len(order) - 0.5, -0.5)
    for y in first:
        beside(panels[0], order["method"][y], (0, -116), y, weight="bold")
    return figure


def beside(ax: Axes, text: str, x: tuple[float, float], y: float, **how: Any) -> None:
    """Text of a row, so many points from a fraction of the width of the axes."""
    place, how = (
        ax.get_yaxis_transform(),
        {"va": "center_baseline", "ha": "left", "size": 6.8} | how,
    )
    ax.annotate(
        text, (x[0], y), (x[1], 0), xycoords=place, textcoords="offset points",
        annotation_clip=False, **how,
    )  # fmt: skip


def main() -> None:
    """Measure, print, and with --out draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for component_swap.pdf, .png, .md")
    asked = parser.parse_args()
    items = testbed.items("neutral", n=asked.items, seed=asked.seed, types=TYPES)
    table = compare(measure(probe.load(MODEL), items))
    command = f"python experiments/component_swap.py --items {asked.items} --seed {asked.seed}"
    text = written(table, command)
    print(text)
    if asked.out:
        stem = asked.out / "component_swap"
        stem.with_suffix(".md").write_text(text, encoding="utf-8")
        plot.save(draw(table), stem)


if __name__ == "__main__":
    main()
