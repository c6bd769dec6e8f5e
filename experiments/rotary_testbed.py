"""What rotary positions do on the two testbed checkpoints: one axis against three.

    python experiments/rotary_testbed.py --out figures

testbed/onevision numbers all tokens in a row; testbed/qwen gives video tokens a time, a height and
a width. On items of every question type: rotation removed from some edges (`NoRope`), and, where
there are three axes, one axis made equal for all video tokens. Margin of the right answer against
the best other option and share of right first tokens, means over items with bootstrap 95 %
intervals.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import probe
from probe import plot, testbed
from probe.ablate import NoRope
from probe.diagnose.items import encode_item, summarise
from probe.diagnose.margin import margin

MODELS = ("testbed/onevision", "testbed/qwen")
TYPES = ["color", "shape", "direction", "count", "order", "existence"]
EDGES = {
    "as is": None,
    "no rotation, video -> text": "video -> text",
    "no rotation, video -> video": "video -> video",
    "no rotation, text -> text": "text -> text",
    "no rotation at all": "all -> all",
}
AXES = ("time", "height", "width")
ITEMS = 20  # of each type


def main() -> None:
    """Measure, print, and with --out draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=ITEMS, help="of each question type")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for rotary_testbed.pdf, .png, .md")
    asked = parser.parse_args()
    items = testbed.items("neutral", n=asked.items * len(TYPES), seed=asked.seed, types=TYPES)
    rows = []
    for name in MODELS:
        model = probe.load(name)
        for number, item in enumerate(items):
            rows += [row | {"model": name, "item": number} for row in measure(model, item)]
    found = pd.DataFrame(rows)
    table = summarise(found, ["model", "type", "what"], ["margin", "right"])
    command = f"python experiments/rotary_testbed.py --items {asked.items} --seed {asked.seed}"
    lines = [f"`{command}`; {asked.items} items of each type, bootstrap 95 % intervals.", ""]
    for name in MODELS:
        mine = table[table["model"] == name]
        lines += [f"**{name}**: share of right answers, and margin in logits", ""]
        lines += ["| | " + " | ".join(TYPES) + " |", "| --- " * (len(TYPES) + 1) + "|"]
        for what in mine["what"].drop_duplicates():
            cells = mine[mine["what"] == what].set_index("type").loc[TYPES].itertuples()
            shown = [
                f"{c.right:.2f} ({c.margin:.1f} [{c.margin_low:.1f}, {c.margin_high:.1f}])"
                for c in cells
            ]
            lines.append(f"| {what} | " + " | ".join(shown) + " |")
        lines.append("")
    print("\n".join(lines))
    if asked.out:
        stem = asked.out / "rotary_testbed"
        stem.with_suffix(".md").write_text("\n".join(lines))
        plot.save(draw(table), stem)


def measure(model, item) -> list[dict]:
    """Margin and first token of one item, as is and with rotation removed."""
    x = encode_item(model, item)
    plain = model.run(x)
    follow = margin(model, x, plain, item.question.answer, item.question.options)
    runs = {
        what: plain if edges is None else model.run(x, ablate=[NoRope(edges)])
        for what, edges in EDGES.items()
    }
    positions = x.inputs["position_ids"]
    if positions.dim() == 3:
        video = x.layout.select("video")
        for axis, name in enumerate(AXES):
            same = positions.clone()
            same[axis, 0, video] = positions[axis, 0, video[0]]
            y = replace(x, inputs=x.inputs | {"position_ids": same})
            runs[f"one {name} for all video"] = model.run(y)
    return [
        {
            "type": item.question.type,
            "what": what,
            "margin": follow.of(run),
            "right": float(run.logits[0].argmax() == follow.target_id),
        }
        for what, run in runs.items()
    ]


@plot.paper()
def draw(table: pd.DataFrame) -> Figure:
    """Share of right answers by type, a panel a model, a row an ablation."""
    figure = Figure(figsize=(plot.DOUBLE, 2.5), layout="constrained")
    panels = figure.subplots(1, len(MODELS))
    for axes, name in zip(panels, MODELS, strict=True):
        mine = table[table["model"] == name]
        grid = mine.pivot(index="what", columns="type", values="right")
        grid = grid.loc[mine["what"].drop_duplicates(), TYPES]
        image = axes.imshow(grid, vmin=0, vmax=1, cmap="Oranges_r", aspect="auto")
        axes.set_xticks(range(len(TYPES)), TYPES, rotation=35, ha="right")
        axes.set_yticks(range(len(grid)), grid.index)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(name)
        for (row, column), value in np.ndenumerate(grid.to_numpy()):
            color = "white" if value < 0.5 else "#1c1b19"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, size=6)
    figure.colorbar(image, ax=panels, label="share of right answers", shrink=0.8)
    return figure


if __name__ == "__main__":
    main()
