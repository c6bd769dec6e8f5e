"""A table of results as `Store.table()` gives it, made by hand: effects are known."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probe.study.show import Names

KEEPS = (0.5, 0.25, 0.1)
NAMES = Names(("margin", "accuracy"), ("type",))


def label(keep: float, k: int = 2) -> str:
    return f"fastv(k={k}, keep={keep})"


def loss(keep: float) -> float:
    """What the ablation takes from every margin, before noise."""
    return round(2 * (0.5 - keep), 6)


def made(samples: int = 60, videos: int = 20, seeds: int = 3, noise: float = 0.5) -> pd.DataFrame:
    """Margins of 4 with a spread of 1, blind -2; random choice loses 1 more, frames .5 more."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(samples):
        about = {"study": "s", "model": "m", "sample": f"s{number}", "video": f"v{number % videos}"}
        about |= {"type": ("count", "order")[number % 2], "error": None, "seconds": 0.1}
        full = 4 + rng.normal()

        def row(role, label, margin, of="", seed=0, about=about):
            scores = {"margin": margin, "accuracy": float(margin > 2.5)}
            rows.append(about | {"role": role, "label": label, "of": of, "seed": seed} | scores)

        row("untouched", "untouched", full)
        row("blind", "blind", -2 + 0.1 * rng.normal())
        for keep in KEEPS:
            less = full - loss(keep)
            row("ablation", label(keep), less + noise * rng.normal())
            for seed in range(seeds):
                name = f"{label(keep)} | random {seed}"
                row("random", name, less - 1 + noise * rng.normal(), label(keep), seed)
            name = f"{label(keep)} | uniform frames"
            row("uniform frames", name, less - 0.5 + noise * rng.normal(), label(keep))
    return pd.DataFrame(rows)
