"""How much of the video a testbed checkpoint needs, over testbed items.

    python experiments/redundancy_testbed.py --out figures

Every item: the right answer's margin against the best other option; tokens kept from layer 2 on by
attention (FastV), norm, uniformly or at random; all video dropped from each layer on. Means over
items with bootstrap 95 % intervals.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import probe
from probe import plot, testbed
from probe.diagnose import counterfactuals_over, redundancy_over

MODEL = "testbed/onevision"
ITEMS = 48  # 8 of each of the 6 types below
TYPES = ["color", "shape", "direction", "count", "order", "existence"]
SCORES = ("attention", "norm", "uniform", "random")
KEEP = (0.5, 0.25, 0.1, 0.05, 0.02)
SEEDS = 3  # random choices an item


def main() -> None:
    """Measure, print, and with --out draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for redundancy_testbed.pdf, .png, .md")
    asked = parser.parse_args()
    model = probe.load(asked.model)
    items = testbed.items("neutral", n=asked.items, seed=asked.seed, types=TYPES)
    tables = redundancy_over(model, items, keep=KEEP, seeds=SEEDS)
    clips = counterfactuals_over(model, items).set_index("clip")
    full, blind = clips.loc["as is", "margin"], clips.loc["none", "margin"]
    command = f"python experiments/redundancy_testbed.py --items {asked.items} --seed {asked.seed}"
    command += "" if asked.model == MODEL else f" --model {asked.model}"
    lines = [f"`{command}`, n = {asked.items} items.", ""]
    lines += ["Margins of the right answer in logits, with bootstrap 95 % intervals.", ""]
    lines += [f"Full {full:.2f}, without a clip {blind:.2f}.", ""]
    lines += ["| tokens kept from layer 2 on | " + " | ".join(SCORES) + " |"]
    lines += ["| --- " * 5 + "|"]
    kept = tables["kept"].set_index(["score", "keep"])
    for keep in (1.0, *KEEP):
        cells = [kept.loc[(score, keep)] for score in SCORES]
        shown = [f"{c.margin:.2f} [{c.margin_low:.2f}, {c.margin_high:.2f}]" for c in cells]
        lines.append(f"| {keep:.0%} ({cells[0].tokens:.0f}) | " + " | ".join(shown) + " |")
    lines += ["", "| all video dropped from layer | margin | same answer |", "| --- | --- | --- |"]
    for row in tables["drop_from_layer"].itertuples():
        interval = f"[{row.margin_low:.2f}, {row.margin_high:.2f}]"
        lines.append(f"| {row.layer} | {row.margin:.2f} {interval} | {row.same:.0%} |")
    print("\n".join(lines))
    if asked.out:
        other = "" if asked.model == MODEL else f"_{Path(asked.model).name}"
        stem = asked.out / f"redundancy_testbed{other}"
        stem.with_suffix(".md").write_text("\n".join(lines) + "\n")
        drawn = tables["kept"].astype({"tokens": int})
        others = drawn["score"] != "random"  # the band is that of the control alone
        for end in ("margin_low", "margin_high"):
            drawn[end] = drawn[end].where(~others, drawn["margin"])
        plot.save(plot.kept_tokens(drawn, full, blind, "margin"), stem)
        table = tables["drop_from_layer"]
        plot.save(plot.drop_from_layer(table, full, blind, "margin"), f"{stem}_layers")


if __name__ == "__main__":
    main()
