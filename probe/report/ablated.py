"""What an ablation left of a run, beside the run without it, as rows and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.ablate.base import Ablation
    from probe.engine.result import Run
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel


def check(model: VideoModel, x: Example, lists: Mapping[str, list[Ablation]]) -> None:
    """Refuse, before anything runs, ablations that do not fit the model or the prompt.

    Args:
        model, x: what will run on what.
        lists: ablations that are applied together, by their names.

    Raises:
        ProbeError: names the ablation whose arguments do not fit.
    """
    from probe.engine.session import Session

    for name, ablations in lists.items():
        if any(one.listens("prepare") for one in ablations):
            continue  # what they act on is made when they run
        try:
            Session(model, x, (), ablations)
        except ProbeError as error:
            raise ProbeError(f"{name}: {error}") from None


def left(run: Run) -> dict[str, Any]:
    """Visual tokens in each decoder layer, and the decoder's cost, with and without ablations."""
    return {
        "visual_tokens": visual_tokens(run),
        "macs": run.cost.macs,
        "macs_full": run.cost.macs_full,
        "kv_bytes": run.cost.kv_bytes,
        "kv_bytes_full": run.cost.kv_bytes_full,
    }


def visual_tokens(run: Run) -> list[int]:
    """Visual tokens that each decoder layer works on."""
    if run.layout is None:
        return []
    visual = np.isin(run.layout.role, ("video", "image"))
    return run.kept.values[:, : len(visual)][:, visual].sum(1).tolist()


def by_layer(counts: Sequence[int]) -> str:
    """Counts in a row, runs of equal ones as one: "576 in layers 0-1, 58 in 2-5"."""
    starts = [n for n, count in enumerate(counts) if n == 0 or count != counts[n - 1]]
    ends = [*(start - 1 for start in starts[1:]), len(counts) - 1]
    parts = [
        f"{counts[start]:,} in {start}" + (f"-{end}" if end > start else "")
        for start, end in zip(starts, ends, strict=True)
    ]
    if len(parts) == 1:
        return f"{counts[0]:,} in every layer"
    return ", ".join(parts).replace(" in ", " in layers ", 1)


def part(row: dict[str, Any], what: str) -> str:
    """The part of the unablated that is left: "43%"; empty where it is not known."""
    whole = row[f"{what}_full"]
    return f"{row[what] / whole:.0%}" if whole else ""


def amount(number: float, unit: str) -> str:
    """A number with a prefix: "1.23 G"."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(number) < 1000 or prefix == "T":
            return f"{number:.3g} {prefix}{unit}"
        number /= 1000
    return ""
