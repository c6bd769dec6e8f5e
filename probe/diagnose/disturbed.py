"""Clips and questions disturbed so that the right answer stays what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from probe.errors import ProbeError
from probe.video import Clip, perturb, perturb_picture
from probe.video.clip import join

Disturb = Callable[[Clip, int], Clip]
"""From a clip and a seed to a clip."""


def grain(clip: Clip, seed: int, amount: float = 0.25) -> Clip:
    """A quarter of noise in every frame."""
    return perturb.noise(clip, seed, amount)


def dark(clip: Clip, seed: int, share: float = 0.5) -> Clip:
    """Half the light."""
    pixels = np.rint(clip.frames * share).astype(np.uint8)
    return replace(clip, frames=pixels, note=join(clip.note, f"light times {share:g}"))


def patches(clip: Clip, seed: int, share: float = 0.25, size: int | None = None) -> Clip:
    """A quarter of the patches of every frame painted over, others in each frame."""
    side = size or max(1, min(clip.frames.shape[1:3]) // 12)
    return perturb_picture.mask(clip, share, seed, side)


def camera(clip: Clip, seed: int, reach: float = 0.08) -> Clip:
    """The whole picture moved by a smooth random path of the camera; edges are repeated.

    Args:
        clip: the clip.
        seed: of the path.
        reach: largest shift, as a share of each side.
    """
    count, height, width = clip.frames.shape[:3]
    draw = np.random.default_rng(seed)
    turns, phases = draw.uniform(0.5, 1.5, 2), draw.uniform(0, 2 * np.pi, 2)
    time = np.arange(count) / max(1, count - 1)
    path = np.sin(2 * np.pi * turns * time[:, None] + phases)
    shift = np.rint((path - path[:1]) / 2 * reach * np.array([height, width])).astype(int)
    pixels = np.empty_like(clip.frames)
    for number, (down, right) in enumerate(shift):
        rows = np.clip(np.arange(height) - down, 0, height - 1)
        cols = np.clip(np.arange(width) - right, 0, width - 1)
        pixels[number] = clip.frames[number][rows][:, cols]
    return replace(clip, frames=pixels, note=join(clip.note, f"camera moved (seed {seed})"))


def complementary(clip: Clip, seed: int, size: int | None = None) -> Clip:
    """Half the patches of each frame painted over, the other half in the next: what one frame
    lacks its neighbour shows.
    """
    side = size or max(1, min(clip.frames.shape[1:3]) // 12)
    count, height, width = clip.frames.shape[:3]
    cells = (-(-height // side), -(-width // side))
    half = np.random.default_rng(seed).permutation(cells[0] * cells[1]) % 2
    grid = half.reshape(cells)[np.arange(height) // side][:, np.arange(width) // side]
    hidden = grid[None] == (np.arange(count) % 2)[:, None, None]
    grey = np.uint8(perturb.flat(clip, "grey", "complementary"))
    pixels = np.where(hidden[..., None], grey, clip.frames)
    return replace(clip, frames=pixels, note=join(clip.note, f"complementary masks (seed {seed})"))


MODES: dict[str, Disturb] = {
    "grain": grain,
    "dark": dark,
    "patches": patches,
    "camera": camera,
    "complementary": complementary,
}


def mode(name: str) -> Disturb:
    """A disturbance by name; `grain(0.5)` style strengths are written "grain:0.5".

    Raises:
        ProbeError: another name, or a strength that is no number above 0.
    """
    word, _, strength = name.partition(":")
    if word not in MODES or (word == "complementary" and strength):
        raise ProbeError(f'robustness: no mode "{name}"; there are {", ".join(MODES)}')
    if not strength:
        return MODES[word]
    key = {"grain": "amount", "camera": "reach"}.get(word, "share")
    try:
        value = float(strength)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise ProbeError(f'robustness: the strength in "{name}" is a number above 0, at most 1')
    return partial(MODES[word], **{key: value})
