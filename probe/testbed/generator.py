"""Scenes drawn from a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from probe.testbed.drawing import cover, mask
from probe.testbed.prior import draw
from probe.testbed.scene import BACKGROUNDS, COLORS, MOTIONS, SHAPES, Box, Scene, Thing

SIDES = (24, 26, 28, 30, 32)
SEEN = 0.5


def make_scene(
    seed: int,
    *,
    objects: int | None = None,
    frames: int = 16,
    size: int = 96,
    hidden: bool = False,
    medium: str = "scene",
    background: str | None = None,
    twins: bool = False,
) -> Scene:
    """Draw a scene.

    Args:
        seed: the scene depends on it and the arguments alone.
        objects: how many, 1 to 4; drawn evenly by default.
        frames, size: length of the clip (at least 8) and its side in pixels (at least 96).
        hidden: the colour of one or two objects cannot be seen and is drawn from the prior.
        medium: "blank" or "noise" for a clip that shows nothing.
        background: "plain", "gradient" or "noisy"; drawn by default.
        twins: objects may share a colour; shapes they may share always, both together never.
    """
    if frames < 8 or size < 96:
        raise ValueError("a testbed clip has at least 8 frames of at least 96 pixels")
    if objects is not None and not 1 <= objects <= 4:
        raise ValueError("a testbed clip has 1 to 4 objects")
    rng = np.random.default_rng([seed, 0])
    ground = background or str(rng.choice(BACKGROUNDS))
    tones = (_tone(rng), _tone(rng))
    count = objects or int(rng.integers(1, 5))
    things: tuple[Thing, ...] = ()
    while medium == "scene" and not things:
        things = _place(rng, _kinds(rng, count, hidden, twins), frames, size)
    return Scene(seed, frames, size, ground, tones, medium, things)


def _tone(rng: np.random.Generator) -> tuple[int, int, int]:
    level, tint = rng.integers(85, 190), rng.integers(-8, 9, 3)
    red, green, blue = (int(level + part) for part in tint)
    return red, green, blue


def _kinds(
    rng: np.random.Generator, count: int, hidden: bool, twins: bool
) -> list[tuple[str, str, str]]:
    """Shape, colour and surface of each object."""
    if hidden:
        concealed = 1 + int(count > 2 and rng.random() < 0.3)
        shapes = [str(s) for s in rng.permutation(SHAPES)]
        kinds = [
            (shape, draw("color", shape, rng), str(rng.choice(("dark", "noise"))))
            for shape in shapes[:concealed]
        ]
        left = shapes[concealed:]
    else:
        kinds, left = [], list(SHAPES)
    while len(kinds) < count:
        kind = (str(rng.choice(left)), str(rng.choice(COLORS)), "plain")
        shared = [other for other in kinds if other[1] == kind[1]]
        if not shared or (twins and kind[:2] not in [other[:2] for other in shared]):
            kinds.append(kind)
    return [kinds[number] for number in rng.permutation(count)]


def _place(
    rng: np.random.Generator, kinds: Sequence[tuple[str, str, str]], frames: int, size: int
) -> tuple[Thing, ...]:
    """Paths for all objects, or nothing where one is hidden behind others for too long."""
    for _ in range(40):
        sides = [int(rng.choice(SIDES)) for _ in kinds]
        motions = [str(rng.choice(MOTIONS)) for _ in kinds]
        paths = [
            _path(rng, side, way, frames, size) for side, way in zip(sides, motions, strict=True)
        ]
        seen = _fractions([k[0] for k in kinds], sides, paths, size)
        enough = [
            sum(v >= SEEN for v in row) >= max(frames // 2, 0.75 * sum(b is not None for b in path))
            for row, path in zip(seen, paths, strict=True)
        ]
        if all(enough):
            return tuple(
                Thing(shape, color, way, surface, side, path, row)
                for (shape, color, surface), way, side, path, row in zip(
                    kinds, motions, sides, paths, seen, strict=True
                )
            )
    return ()


def _path(
    rng: np.random.Generator, side: int, way: str, frames: int, size: int
) -> tuple[Box | None, ...]:
    """A box per frame: present from the start, or up to the end, or both."""
    first, last = 0, frames
    kind = rng.random()
    if kind < 0.35:
        first = int(rng.integers(-(-frames * 5 // 16), frames * 7 // 16 + 1))
    elif kind < 0.5:
        last = frames - int(rng.integers(-(-frames * 5 // 16), frames * 7 // 16 + 1))
    room = size - side
    travel = rng.uniform(min(36, 0.6 * room), min(56, room)) if way != "stays" else 0.0
    along = rng.uniform(0, room - travel)
    across = int(rng.integers(0, room + 1))
    steps = np.linspace(along, along + travel, last - first)
    if way in ("left", "up"):
        steps = steps[::-1]
    boxes: list[Box | None] = [None] * frames
    for frame, step in zip(range(first, last), np.rint(steps).astype(int).tolist(), strict=True):
        x, y = (across, step) if way in ("up", "down") else (step, across)
        boxes[frame] = (x, y, x + side, y + side)
    return tuple(boxes)


def _fractions(
    shapes: Sequence[str], sides: Sequence[int], paths: Sequence[tuple], size: int
) -> list[tuple[float, ...]]:
    """The visible fraction of each object in each frame."""
    full = [int(mask(shape, side).sum()) for shape, side in zip(shapes, sides, strict=True)]
    columns = []
    for boxes in zip(*paths, strict=True):
        shown = cover(list(zip(shapes, sides, boxes, strict=True)), size)
        counts = np.bincount(shown.ravel() + 1, minlength=len(shapes) + 1)[1:]
        columns.append([round(float(c) / f, 4) for c, f in zip(counts, full, strict=True)])
    return [tuple(row) for row in zip(*columns, strict=True)]
