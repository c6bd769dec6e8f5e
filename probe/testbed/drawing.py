"""Scenes become pixels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from probe.testbed.scene import SHAPES, Box, Scene

RGB = {
    "red": (225, 30, 30),
    "green": (30, 175, 40),
    "blue": (35, 60, 230),
    "yellow": (240, 220, 30),
    "purple": (190, 40, 215),
    "cyan": (40, 215, 225),
}
DARK = 6
NOISE = 14


@lru_cache(maxsize=256)
def mask(shape: str, size: int) -> np.ndarray:
    """The pixels of a shape in its size x size box, as booleans."""
    if shape not in SHAPES:
        raise ValueError(f"no such shape: {shape}")
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = axis[None, :], axis[:, None]
    if shape == "circle":
        found = x**2 + y**2 <= 1
    elif shape == "square":
        found = (abs(x) <= 0.88) & (abs(y) <= 0.88)
    elif shape == "triangle":
        found = abs(x) <= (y + 1) / 2
    elif shape == "cross":
        found = (abs(x) <= 0.32) | (abs(y) <= 0.32)
        found = found & (abs(x) <= 1) & (abs(y) <= 1)
    else:
        angle = np.arctan2(x, -y)
        turn = np.abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
        edge = 0.42 * np.sin(np.pi / 5)
        slope = (1 - 0.42 * np.cos(np.pi / 5)) / edge
        radius = np.sqrt(x**2 + y**2)
        found = radius * (np.cos(turn) + slope * np.sin(turn)) <= 1
    found.setflags(write=False)
    return found


def cover(shapes: Sequence[tuple[str, int, Box | None]], size: int) -> np.ndarray:
    """Which object each pixel of one frame shows, back to front; -1 is background."""
    shown = np.full((size, size), -1, dtype=np.int8)
    for number, (shape, side, box) in enumerate(shapes):
        if box is not None:
            shown[box[1] : box[3], box[0] : box[2]][mask(shape, side)] = number
    return shown


def covers(scene: Scene) -> np.ndarray:
    """`cover` of every frame: an array [time, height, width]."""
    frames = [
        cover([(t.shape, t.size, t.boxes[frame]) for t in scene.things], scene.size)
        for frame in range(scene.frames)
    ]
    return np.stack(frames)


def render(scene: Scene) -> np.ndarray:
    """The frames of a scene: uint8 [time, height, width, 3]."""
    rng = np.random.default_rng([scene.seed, 1])
    shape = (scene.frames, scene.size, scene.size, 3)
    if scene.medium == "blank":
        return np.broadcast_to(np.array(scene.tones[0], np.uint8), shape).copy()
    if scene.medium == "noise":
        return _blocks(rng, shape)
    ground = _background(scene, rng)
    if not scene.things:
        return ground
    palette = np.array([_colour(t.surface, t.color) for t in scene.things], np.uint8)
    shown = covers(scene)
    inside = shown >= 0
    ground[inside] = palette[shown[inside]]
    for number, thing in enumerate(scene.things):
        where = shown == number
        if thing.surface == "noise":
            ground[where] = _blocks(rng, shape)[where]
        elif thing.surface == "dark":
            ground[where] = rng.integers(0, NOISE, (int(where.sum()), 1), dtype=np.uint8)
    return ground


def _colour(surface: str, color: str) -> tuple[int, int, int]:
    return RGB[color] if surface == "plain" else (DARK, DARK, DARK)


def _background(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    first, second = (np.array(tone, np.float32) for tone in scene.tones)
    side = scene.size
    flat = np.broadcast_to(first, (side, side, 3)).copy()
    if scene.background == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        axis = np.linspace(-0.5, 0.5, side, dtype=np.float32)
        ramp = axis[None, :] * np.cos(angle) + axis[:, None] * np.sin(angle)
        ramp = (ramp - ramp.min()) / (ramp.max() - ramp.min())
        flat = first + (second - first) * ramp[..., None].astype(np.float32)
    if scene.background == "noisy":
        flat = flat + rng.normal(0, 14, (side, side, 1)).astype(np.float32)
    ground = np.clip(flat, 0, 255).astype(np.uint8)
    return np.repeat(ground[None], scene.frames, axis=0)


def _blocks(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Coloured noise in squares of 3 pixels, new in each frame."""
    frames, height, width, _ = shape
    small = (frames, -(-height // 3), -(-width // 3), 3)
    noise = rng.integers(0, 256, small, dtype=np.uint8)
    return noise.repeat(3, axis=1).repeat(3, axis=2)[:, :height, :width]
