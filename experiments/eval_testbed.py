"""Accuracy of a testbed checkpoint by question type, number of frames and split.

    python experiments/eval_testbed.py [--model testbed/onevision] [--n 2100] [--card FILE]

Prints the tables, and puts them between the two markers of the model card FILE where it is given.
`--quick` asks a tenth of the items.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd

import probe
from probe.testbed import evaluate

MARKS = ("<!-- accuracy -->", "<!-- end -->")
TARGETS = {
    "color": 0.98,
    "shape": 0.97,
    "direction": 0.97,
    "count": 0.95,
    "order": 0.95,
    "existence": 0.96,
    "caption": 0.9,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="testbed/onevision")
    parser.add_argument("--n", type=int, default=2100, help="neutral items at 16 frames")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a tenth of the items")
    parser.add_argument("--card", type=Path, help="model card to put the tables in")
    args = parser.parse_args()
    started = time.time()
    count = args.n // 10 if args.quick else args.n
    model = probe.load(args.model)
    neutral = evaluate(model, "neutral", count, frames=16, seed=args.seed)
    neutral["target"] = neutral["type"].map(TARGETS)
    tables = {f"Neutral items, 16 frames ({count} items)": neutral}
    for split in ("hidden", "counter-prior"):
        found = evaluate(model, split, count // 3, frames=16, seed=args.seed)
        tables[f"The {split} split, 16 frames ({count // 3} items)"] = found
    found = evaluate(model, "neutral", count // 3, frames=16, seed=args.seed, twins=True)
    tables[f"Neutral items where objects may share a colour ({count // 3} items)"] = found
    by_frames = {
        frames: evaluate(model, "neutral", count // 3, frames=frames, seed=args.seed + 1)
        for frames in (4, 6, 8, 12, 16)
    }
    wide = pd.concat(
        {f"{frames} frames": t.set_index("type")["accuracy"] for frames, t in by_frames.items()},
        axis=1,
    ).reset_index()
    tables[f"Neutral items by number of frames ({count // 3} items each)"] = wide
    text = "\n\n".join(f"### {title}\n\n{_markdown(table)}" for title, table in tables.items())
    print(text)
    print(f"\n{time.time() - started:.0f} s")
    if args.card:
        before, _, rest = args.card.read_text().partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        args.card.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}")


def _markdown(table: pd.DataFrame) -> str:
    lines = ["| " + " | ".join(table.columns) + " |", "|" + " --- |" * len(table.columns)]
    for row in table.itertuples(index=False):
        lines.append("| " + " | ".join(_cell(value) for value in row) + " |")
    return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.3f}"
    return str(value)


if __name__ == "__main__":
    main()
