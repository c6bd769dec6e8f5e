"""What a sweep saves: `model.sweep` against the loop over `model.run` that gives the same numbers.

    python experiments/bench_sweep.py [--out figures/bench_sweep.md]

The model has random weights: a decoder of 12 layers and width 512, about 2,000 tokens. The sweeps:

- knockout of video -> question in every window of layers, first to last: 78 of them;
- half of the visual tokens dropped from layer k on, for every k, by norm and by FastV, which reads
  the attention of the layer before.

Both ways run in one process, in turn, round by round; a ratio is the median over rounds. The time
of the sweep has everything in it, its untouched run too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench_model import build

from probe.ablate import Knockout, Norm, Reduce, fastv, layer

LAYERS, TOKENS = 12, 2000


def sweeps() -> dict[str, list]:
    """Ablations by the name of the sweep."""
    windows = [
        range(first, stop) for first in range(LAYERS) for stop in range(first + 1, LAYERS + 1)
    ]
    return {
        "knockout video -> question, every window of layers": [
            Knockout("video -> question", layers=window) for window in windows
        ],
        "half of the tokens by norm from layer k on, every k": [
            Reduce(at=layer(k), score=Norm(), keep=0.5) for k in range(LAYERS)
        ],
        "FastV, half of the tokens from layer k on, every k": [
            fastv(k, 0.5) for k in range(1, LAYERS)
        ],
    }


def measure(options: argparse.Namespace) -> list[str]:
    """Lines of the table."""
    model, x = build(options.tokens, layers=LAYERS, device=options.device)
    clock: Callable[[], float] = getattr(time, options.clock)

    def logits(run) -> dict[str, float]:
        return {"top": float(run.logits.max()), "low": float(run.logits.min())}

    lines = []
    for name, ablations in sweeps().items():
        ratios, apart = [], 0.0
        for _ in range(options.rounds):
            started = clock()
            alone = [logits(model.run(x, ablate=[one])) for one in ablations]
            naive = clock() - started
            started = clock()
            table = model.sweep(x, ablations, logits)
            ratios.append((clock() - started) / naive)
            found = table[["top", "low"]].to_numpy()[1:]
            expected = np.array([[one["top"], one["low"]] for one in alone])
            apart = max(apart, float(np.abs(found - expected).max()))
        ratio = statistics.median(ratios)
        lines.append(
            f"| {name} | {len(ablations)} | {ratio:.3f} (1/{1 / ratio:.0f}) | {apart:.0e} |"
        )
        print(lines[-1], flush=True)
    return [
        f"{len(x.layout)} tokens, {LAYERS} layers, {options.rounds} rounds, {model.hf.dtype}",
        "",
        "| sweep | ablations | time by that of the loop | largest difference of logits |",
        "|---|---|---|---|",
        *lines,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", default="process_time", choices=("process_time", "perf_counter"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = measure(options)
    if options.out:
        text = "\n".join(["# What a sweep saves", "", __doc__.strip(), "", *lines, ""])
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
