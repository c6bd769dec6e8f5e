"""Which component of a reduction earns its accuracy, over testbed items.

    python experiments/component_swap.py --out figures

Every method at two fractions of kept tokens, and each of its controls: one component swapped (its
score for a random or an evenly spaced one, its segments for windows of four frames, its merging
for dropping, its budget for equal shares), at exactly the same number of tokens in every layer.
Margin of the right answer against the best other option and share of right first tokens; paired
differences of method and control, means over items with bootstrap 95 % intervals.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import probe
from probe import plot, testbed
from probe.ablate import EncoderReceived, Random, Reduce, TopK, controls, fastv, parse
from probe.ablate.recipes.attention_pruning import pyramiddrop
from probe.ablate.recipes.diversity import divprune, vidcom2
from probe.ablate.recipes.time_pruning import fastvid
from probe.ablate.recipes.token_merging import visionzip
from probe.ablate.recipes.tower_pruning import fastervlm, holitom
from probe.diagnose.items import encode_item, interval
from probe.diagnose.margin import margin
from probe.plot.style import ACCENT, DEEP, FAINT, QUIET, new_figure

MODEL = "testbed/onevision"
TYPES = ["color", "shape", "direction", "count", "order", "existence"]
ITEMS = 48  # 8 of each type
KEEP = (0.25, 0.1)
EQUAL = ("FastV", "PyramidDrop", "FasterVLM", "VisionZip")  # groups have equal shares anyway
OPEN = "#a39c93"  # an interval that holds 0
SEEN = EncoderReceived()  # the tower has no CLS token
KINDS = {
    "score=Random()": "score → random",
    "score=Uniform()": "score → even",
    "select=TopK(), score=Random()": "choice → random",
    "segment=Fixed(4)": "segments → fixed",
    "rest=Drop()": "merge → drop",
    "budget=Equal()": "budget → equal",
}


def methods(keep: float) -> dict[str, Any]:
    """Each method at a fraction of kept tokens; inner stages in layer 4 of 6, or in thirds."""
    return {
        "FastV": fastv(2, keep),
        "PyramidDrop": pyramiddrop((1, 2, 4), ((1 + keep) / 2, keep**0.5, keep)),
        "FasterVLM": fastervlm(keep, SEEN),
        "VisionZip": visionzip(keep=keep, score=SEEN),
        "VidCom2": vidcom2(keep),
        "DivPrune": divprune(keep),
        "FastVID": fastvid(keep, score=SEEN),
        "HoliTom": holitom(keep, tau=0.65 if keep <= 0.1 else 0.8, k=4),
    }


def swapped(name: str, method: Any, seed: int) -> dict[str, Any]:
    """The controls of a method; random ones drawn anew for each item."""
    if isinstance(method, Reduce) and method.score is None and method.pool is None:
        random = replace(method, score=Random(seed), select=TopK())
        return {"select=TopK(), score=Random()": random}
    found = controls(method)
    if name in EQUAL:
        found.pop("budget=Equal()", None)
    drawn = found.pop("score=Random(seed=0)")
    parts = list(drawn) if isinstance(drawn, list) else [drawn]
    texts = [str(replace(one)).replace("Random()", f"Random(seed={seed})") for one in parts]
    return {"score=Random()": [parse(text)[0] for text in texts], **found}


def measure(model: Any, item: Any, number: int) -> list[dict]:
    """A row for each method, each control of it, and everything, on one item."""
    x = encode_item(model, item)
    follow = margin(model, x, model.run(x), item.question.answer, item.question.options)
    names, made = [], []
    for keep in KEEP:
        for name, method in methods(keep).items():
            for what, one in {"": method, **swapped(name, method, number)}.items():
                names.append({"keep": keep, "method": name, "control": what, "item": number})
                made.append(one)

    def read(run: Any) -> dict[str, float]:
        right = float(run.logits[0].argmax() == follow.target_id)
        return {"margin": follow.of(run), "right": right, "tokens": sum(run.cost.length)}

    table = model.sweep(x, made, read)
    full = {"keep": 1.0, "method": "", "control": "", "item": number}
    values = table[["margin", "right", "tokens"]].to_dict("records")
    return [{**name, **row} for name, row in zip([full, *names], values, strict=True)]


def compare(found: pd.DataFrame) -> pd.DataFrame:
    """Means of each method and control, and their paired differences.

    Raises:
        ValueError: a control that has not the method's number of tokens.
    """
    rows = []
    for (keep, method, what), part in found.groupby(["keep", "method", "control"], sort=False):
        part = part.set_index("item")
        own = found[(found["keep"] == keep) & (found["method"] == method)]
        own = own[own["control"] == ""].set_index("item")
        if (own["tokens"] != part["tokens"]).any():
            raise ValueError(f"{method} and {what} do not keep the same number of tokens")
        row = {"keep": keep, "method": method, "control": what, "n": len(part)}
        for value in ("margin", "right"):
            row[value] = part[value].mean()
            row[f"{value}_low"], row[f"{value}_high"] = interval(part[value].to_numpy())
            gain = (own[value] - part[value]).to_numpy()
            row[f"{value}_gain"] = gain.mean()
            row[f"{value}_gain_low"], row[f"{value}_gain_high"] = interval(gain)
        rows.append(row)
    return pd.DataFrame(rows)


def written(table: pd.DataFrame, command: str) -> str:
    """The tables as Markdown."""
    full = table[table["method"] == ""].iloc[0]
    lines = [
        f"`{command}`; n = {full['n']} items of testbed/onevision, 576 visual tokens.",
        "",
        "Margin of the right answer in logits and share of right answers. Gains are method minus "
        "control, paired by item, with bootstrap 95 % intervals; both have the same number of "
        "tokens in every layer. Random choices are drawn anew for each item.",
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
            cells = [what, f"{row['right']:.0%}", ranged(row, "margin", ".2f"), *gains]
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
        ax.set_title(f"{keep:.0%} of the tokens kept")
        beside(ax, "right answers,\nmethod / control", (1, 5), -1.15, color=QUIET)
        ax.set_xlabel("margin, method − control (logits)")
        ax.tick_params(axis="y", length=0)
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
    model = probe.load(MODEL)
    items = testbed.items("neutral", n=asked.items, seed=asked.seed, types=TYPES)
    rows = [row for number, item in enumerate(items) for row in measure(model, item, number)]
    table = compare(pd.DataFrame(rows))
    command = f"python experiments/component_swap.py --items {asked.items} --seed {asked.seed}"
    text = written(table, command)
    print(text)
    if asked.out:
        stem = asked.out / "component_swap"
        stem.with_suffix(".md").write_text(text, encoding="utf-8")
        plot.save(draw(table), stem)


if __name__ == "__main__":
    main()
