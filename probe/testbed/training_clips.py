"""Clips to train on: drawn in bulk, with what each cell of each frame shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from probe.testbed.drawing import covers, render
from probe.testbed.generator import make_scene
from probe.testbed.scene import COLORS, MOTIONS, SHAPES, Scene

CELLS = 6
UNKNOWN = len(COLORS)
MIXED = -2


@dataclass(frozen=True)
class Pool:
    """Rendered clips with labels.

    Attributes:
        frames: uint8 [clip, time, height, width, 3].
        cells: int8 [clip, time, 36]: the object that a cell shows, -1 for background, -2 where
            it is neither clearly.
        things: int16 [clip, 4, 4]: shape, colour (`UNKNOWN` where hidden), motion and first frame.
        centres: int16 [clip, time, 4, 2]: x and y of each object's centre in pixels.
        scenes: the scene graphs.
    """

    frames: np.ndarray
    cells: np.ndarray
    things: np.ndarray
    centres: np.ndarray
    scenes: Sequence[Scene]

    def __len__(self) -> int:
        return len(self.scenes)


def training_scene(seed: int) -> Scene:
    """The mix that the model is trained on: 15 % with hidden colours, 6 % showing nothing."""
    kind = np.random.default_rng([seed, 2]).random()
    if kind < 0.06:
        return make_scene(seed, medium="blank" if kind < 0.03 else "noise")
    return make_scene(seed, hidden=kind < 0.21, twins=True)


def cell_labels(scene: Scene) -> np.ndarray:
    """Which object each of the 6 x 6 cells of each frame shows: int8 [time, 36]."""
    side = scene.size // CELLS
    shown = covers(scene).reshape(scene.frames, CELLS, side, CELLS, side).swapaxes(2, 3)
    shown = shown.reshape(scene.frames, CELLS * CELLS, side * side)
    parts = [(shown == number).mean(-1) for number in range(-1, len(scene.things))]
    share = np.stack(parts, -1)
    best = share[..., 1:].argmax(-1) if scene.things else np.zeros(share.shape[:-1], int)
    most = share[..., 1:].max(-1) if scene.things else np.zeros(share.shape[:-1])
    label = np.where(most >= 0.15, best, MIXED)
    return np.where(share[..., 0] > 0.97, -1, label).astype(np.int8)


def describe(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The rows of `Pool.things` and `Pool.centres` of a scene."""
    things = np.full((4, 4), -1, np.int16)
    centres = np.zeros((scene.frames, 4, 2), np.int16)
    for number, thing in enumerate(scene.things):
        color = UNKNOWN if thing.hidden else COLORS.index(thing.color)
        motion = MOTIONS.index(thing.motion)
        things[number] = (SHAPES.index(thing.shape), color, motion, thing.first)
        for frame in thing.present:
            x0, y0, x1, y1 = thing.boxes[frame] or (0, 0, 0, 0)
            centres[frame, number] = ((x0 + x1) // 2, (y0 + y1) // 2)
    return things, centres


def make_pool(first: int, count: int, frames: bool = True, workers: int = 2) -> Pool:
    """Draw `count` clips with seeds from `first` on; without frames, their labels alone."""
    size = 250
    starts = range(first, first + count, size)
    jobs = [(range(start, min(start + size, first + count)), frames) for start in starts]
    drawn = np.empty((count if frames else 0, 16, 96, 96, 3), np.uint8)
    rest = []
    with get_context("fork").Pool(workers) as pool:
        for (seeds, _), (some, *labels) in zip(jobs, pool.imap(_draw, jobs), strict=True):
            if frames:
                drawn[seeds[0] - first : seeds[-1] + 1 - first] = some
            rest.append(labels)
    cells, things, centres, scenes = zip(*rest, strict=True)
    labels = [np.concatenate(part) for part in (cells, things, centres)]
    every = [scene for some in scenes for scene in some]
    return Pool(drawn, labels[0], labels[1], labels[2], every)


def _draw(job: tuple[Sequence[int], bool]) -> tuple:
    seeds, frames = job
    scenes = [training_scene(seed) for seed in seeds]
    described = [describe(scene) for scene in scenes]
    return (
        np.stack([render(scene) for scene in scenes]) if frames else None,
        np.stack([cell_labels(scene) for scene in scenes]),
        np.stack([things for things, _ in described]),
        np.stack([centres for _, centres in described]),
        scenes,
    )
