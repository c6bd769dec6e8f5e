"""How stage 2 goes: its phases, and which frames of a clip are shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probe.testbed.question import TYPES


@dataclass(frozen=True)
class Phase:
    """A part of stage 2.

    Attributes:
        steps: how many.
        clips, tokens: clips in a batch at 8 frames, and question tokens behind each.
        frames: numbers of frames, drawn evenly.
        dense: weight of the labels on video tokens.
        weights: of the loss, by question type.
        crowd: how often clips with 0 to 4 objects are drawn, against their share in the pool.
    """

    steps: int
    clips: int
    tokens: int
    frames: tuple[int, ...]
    dense: float
    weights: tuple[float, ...] = (1.0,) * len(TYPES)
    crowd: tuple[float, ...] = (1.0,) * 5


def sample_times(count: int, total: int, rng: np.random.Generator) -> np.ndarray:
    """Which frames to show: evenly spread, sometimes with some dropped and repeated."""
    if rng.random() < 0.12:
        return np.sort(rng.choice(total, count, replace=rng.random() < 0.5))
    even = np.linspace(0, total - 1, count)
    if rng.random() < 0.5:
        even = (np.arange(count) + 0.5) * total / count - 0.5
    if rng.random() < 0.3:
        even = even + rng.uniform(-0.5, 0.5)
    return np.clip(np.rint(even), 0, total - 1).astype(int)
