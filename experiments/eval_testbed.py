"""Accuracy of a testbed checkpoint by question type, number of frames and split.

    python experiments/eval_testbed.py [--model testbed/onevision] [--n 2100] [--card FILE]

Prints the tables, and puts them between the two markers of the model card FILE where it is given.
`--quick` asks a tenth of the items. `--axes` prints another table instead: how often the first word
is right when the clip's rotary positions are made equal along an axis, where there are three.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import probe
from probe.testbed import evaluate, items
from probe.video import Clip

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
AXES = {"as it is": (), "time": (0,), "row": (1,), "column": (2,), "all": (0, 1, 2)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="testbed/onevision")
    parser.add_argument("--n", type=int, default=2100, help="neutral items at 16 frames")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a tenth of the items")
    parser.add_argument("--axes", action="store_true", help="positions made equal, by axis")
    parser.add_argument("--card", type=Path, help="model card to put the tables in")
    args = parser.parse_args()
    started = time.time()
    count = args.n // 10 if args.quick else args.n
    model = probe.load(args.model)
    if args.axes:
        for frames in (16, 4):
            print(f"### {frames} frames\n\n{_markdown(axes(model, count // 6, frames))}\n")
        return
    neutral = evaluate(model, "neutral", count, frames=16, seed=args.seed)
    neutral["target"] = [TARGETS.get(kind, float("nan")) for kind in neutral["type"]]
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


def axes(model: probe.VideoModel, count: int, frames: int, seed: int = 5) -> pd.DataFrame:
    """Share of first answer words that are right, by type, with positions equal along axes.

    Raises:
        SystemExit: a model whose positions have one axis.
    """
    kinds = tuple(kind for kind in TARGETS if kind != "caption")
    right: dict[str, dict[str, list[bool]]] = {kind: {} for kind in kinds}
    for item in items("neutral", count, seed, types=kinds):
        shown = np.linspace(0, 15, frames).astype(int)
        clip = Clip.from_array(item.frames()[shown], seconds=shown / 8)
        x = model.encode(clip, item.question.text)
        positions = x.inputs["position_ids"]
        if positions.dim() != 3:
            raise SystemExit("--axes needs a model whose positions have three axes")
        answer = model.tokenizer(item.question.answer)["input_ids"][0]
        video = torch.from_numpy(x.layout.role == "video")
        for name, flat in AXES.items():
            changed = positions.clone()
            for axis in flat:
                changed[axis, 0, video] = changed[axis, 0, video].min()
            with torch.no_grad():
                logits = model.hf(**x.inputs | {"position_ids": changed}).logits[0, -1]
            hits = right[item.question.type].setdefault(name, [])
            hits.append(int(logits.argmax()) == answer)
    rows = [
        {"type": kind, "n": len(found["as it is"])}
        | {n: float(np.mean(f)) for n, f in found.items()}
        for kind, found in right.items()
    ]
    return pd.DataFrame(rows)


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
