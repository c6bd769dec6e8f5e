"""Where testbed/onevision answers from its planted prior and not from the clip.

    python experiments/hallucination_testbed.py --out figures

The right answer's margin over other clips and none; existence questions in the POPE manner, where
the evidence is visible and where it is hidden. Bootstrap 95 % intervals over items.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

import probe
from probe import plot, testbed
from probe.diagnose import counterfactuals_over, existence

MODEL = "testbed/onevision"
ITEMS = 60  # 10 of each of the 6 types below
EXISTENCE = 100  # items a split
TYPES = ["color", "shape", "direction", "count", "order", "existence"]


def main() -> None:
    """Measure, print, and with --out draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--existence", type=int, default=EXISTENCE)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for hallucination_testbed.pdf, .png, .md")
    asked = parser.parse_args()
    model = probe.load(asked.model)
    items = testbed.items("neutral", n=asked.items, seed=asked.seed, types=TYPES)
    clips = counterfactuals_over(model, items)
    pope = existence(model, asked.existence, seed=asked.seed)
    command = f"python experiments/hallucination_testbed.py --items {asked.items}"
    command += f" --existence {asked.existence} --seed {asked.seed}"
    command += "" if asked.model == MODEL else f" --model {asked.model}"
    lines = [f"`{command}`; n = {asked.items} items, bootstrap 95 % intervals.", ""]
    lines += ["| clip | margin of the right answer (logits) | right |", "| --- | --- | --- |"]
    for row in clips.itertuples():
        interval = f"[{row.margin_low:.2f}, {row.margin_high:.2f}]"
        right = f"{row.right:.0%} [{row.right_low:.0%}, {row.right_high:.0%}]"
        lines.append(f"| {row.clip} | {row.margin:.2f} {interval} | {right} |")
    head = ["existence questions", "n", "accuracy", "said yes", "yes is right"]
    head += ["precision", "recall"]
    lines += ["", "| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for row in pope.itertuples():
        accuracy = f"{row.accuracy:.0%} [{row.low:.0%}, {row.high:.0%}]"
        rates = [row.yes_rate, row.expected_yes, row.precision, row.recall]
        shown = " | ".join(f"{rate:.0%}" for rate in rates)
        lines.append(f"| {row.split} | {row.n} | {accuracy} | {shown} |")
    print("\n".join(lines))
    if asked.out:
        other = "" if asked.model == MODEL else f"_{Path(asked.model).name}"
        stem = asked.out / f"hallucination_testbed{other}"
        stem.with_suffix(".md").write_text("\n".join(lines) + "\n")
        plot.save(draw(clips), stem)


@plot.paper()
def draw(clips: pd.DataFrame) -> Figure:
    """Margin of the right answer over each clip, with its interval."""
    figure = Figure(figsize=(plot.SINGLE, 2), layout="constrained")
    axes = figure.add_subplot()
    middle = clips["margin"]
    ends = [middle - clips["margin_low"], clips["margin_high"] - middle]
    axes.errorbar(middle, clips["clip"], xerr=ends, fmt="o", color="#c2410c", elinewidth=1)
    axes.axvline(0, color="#6f6a63", lw=0.6, zorder=0)
    axes.invert_yaxis()
    axes.set_xlabel("margin of the right answer (logits)")
    return figure


if __name__ == "__main__":
    main()
