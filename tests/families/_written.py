"""Clips of uneven rate, and the seconds that a prompt gives their frames in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from probe.models.encode import Example
from probe.video import Clip
from tests import tiny

SECONDS = np.array([0.0, 0.4, 1.26, 2.55, 71.9996])


def uneven(height: int = 84, width: int = 84) -> Clip:
    """Five frames at times that no constant rate gives."""
    clip = tiny.clip(len(SECONDS), height, width)
    return replace(clip, seconds=SECONDS, duration=72.5, fps=5 / 72.5)


def seconds(x: Example, read: Callable[[str], float]) -> list[float]:
    """What the timestamp of each temporal group says, by a function that reads one."""
    layout = x.layout
    texts = [
        "".join(
            layout.tokens[p]
            for p in np.flatnonzero((layout.role != "video") & (layout.visual >= 0))
            if _group(x, int(p)) == group
        )
        for group in range(len(layout.frames))
    ]
    return [read(text) for text in texts]


def _group(x: Example, position: int) -> int:
    """The group of the next video token."""
    later = np.flatnonzero(x.layout.role == "video")
    later = later[later > position]
    return int(x.layout.group[later[0]]) if len(later) else -1
