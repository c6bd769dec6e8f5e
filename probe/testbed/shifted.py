"""Splits that differ in one thing: unseen pairs, other backgrounds, lengths, things not there.

For what is fitted on answers (a detector of made-up ones): fit on "fit", test on "test" and on the
shifted splits. The built-in checkpoints were trained on all of it; what is new is new to the fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from probe.testbed.asking import blind
from probe.testbed.generator import make_scene
from probe.testbed.item import TEST_SEEDS, TRIES, Item, items
from probe.testbed.question import Question
from probe.testbed.scene import COLORS, SHAPES, Scene

SHIFTS = ("fit", "test", "pairs", "backgrounds", "lengths", "absent")
HELD_OUT = frozenset(
    {
        ("blue", "square"), ("yellow", "star"), ("green", "circle"), ("cyan", "circle"),
        ("red", "square"), ("purple", "triangle"), ("cyan", "star"), ("red", "cross"),
    }
)  # fmt: skip
TYPES = ("color", "shape", "direction", "count", "order", "existence")
LENGTHS = (8, 12, 24)
SEEDS = 500
Pairs = frozenset[tuple[str, str]]


def shifted(
    shift: str = "test", n: int = 100, seed: int = 0, types: Sequence[str] | None = None
) -> list[Item]:
    """Items of a split, every other one hidden (its answer cannot be seen).

    Args:
        shift: "fit" and "test": 16 frames, plain or gradient backgrounds, and no (colour, shape)
            of `HELD_OUT`, shown or named. The others differ from them in one thing: "pairs" asks
            about a held-out pair, "backgrounds" has noisy ones, "lengths" has 8, 12 or 24 frames,
            and the hidden items of "absent" ask for what is not in a normal scene.
        n: how many.
        seed: of the scenes, 0 to 499; no two splits or seeds share one.
        types: question types; those of all splits but captions by default. No count questions
            about pairs, and neither count nor existence about what is absent, since none can be
            hidden.

    Raises:
        ValueError: an unknown split or type, or a seed that another split has.
    """
    _check(shift, seed)
    left = {"pairs": ("count",), "absent": ("count", "existence")}.get(shift, ())
    kinds = tuple(types) if types else tuple(kind for kind in TYPES if kind not in left)
    wrong = next((kind for kind in kinds if kind not in TYPES or kind in left), None)
    if wrong is not None:
        raise ValueError(f"no {wrong} questions in {shift}")
    how: dict[str, Any] = {"make": partial(_scene, shift), "accept": partial(_accept, shift)}
    own = 1000 * (1 + SHIFTS.index(shift)) + seed
    seeable = items("neutral", n - n // 2, own, kinds, **how)
    if shift == "absent":
        hidden = [_absent(kinds, number, own) for number in range(n // 2)]
    else:
        hidden = items("hidden", n // 2, own + SEEDS, kinds, **how)
    found = [(seen, *hidden[turn : turn + 1]) for turn, seen in enumerate(seeable)]
    return [replace(item, id=f"{shift}-{item.id}") for both in found for item in both]


def captions(shift: str = "test", n: int = 100, seed: int = 0) -> list[Item]:
    """Caption items of a split, all of them visible.

    Raises:
        ValueError: as in `shifted`.
    """
    _check(shift, seed)
    how: dict[str, Any] = {"make": partial(_scene, shift), "accept": partial(_accept, shift)}
    own = 1000 * (11 + SHIFTS.index(shift)) + seed
    found = items("neutral", n, own, ["caption"], **how)
    return [replace(item, id=f"{shift}-{item.id}") for item in found]


def pairs(scene: Scene, question: Question) -> Pairs:
    """(colour, shape) of what a question is about: named in it, or with its answer in place."""
    words = question.text.rstrip("?.").replace(",", " ").split()
    named = {(a, b) for a, b in pairwise(words) if a in COLORS and b in SHAPES}
    shapes, colors = ([w for w in words if w in known] for known in (SHAPES, COLORS))
    if question.type == "color":
        return frozenset({(question.answer, shapes[0])})
    if question.type == "shape":
        return frozenset({(colors[0], question.answer)})
    if question.type in ("count", "caption"):
        return shown(scene)
    if question.type == "direction" and not named:
        return frozenset(pair for pair in shown(scene) if pair[1] == shapes[0])
    return frozenset(named)


def shown(scene: Scene) -> Pairs:
    """(colour, shape) of everything in a scene."""
    return frozenset((thing.color, thing.shape) for thing in scene.things)


def _check(shift: str, seed: int) -> None:
    if shift not in SHIFTS:
        raise ValueError(f"no split {shift}; there are {', '.join(SHIFTS)}")
    if not 0 <= seed < SEEDS:
        raise ValueError(f"seed {seed}: those of a split are 0 to {SEEDS - 1}")


def _scene(shift: str, seed: int, **how: Any) -> Scene:
    rng = np.random.default_rng([seed, 5])
    ground, length = str(rng.choice(("plain", "gradient"))), int(rng.choice(LENGTHS))
    ground = "noisy" if shift == "backgrounds" else ground
    length = length if shift == "lengths" else 16
    return make_scene(seed, background=ground, frames=length, **how)


def _accept(shift: str, scene: Scene, question: Question) -> bool:
    about = pairs(scene, question)
    if shift == "pairs":
        return bool(about & HELD_OUT)
    return not (about | shown(scene)) & HELD_OUT


def _absent(kinds: Sequence[str], number: int, seed: int) -> Item:
    """A question about a thing that a normal scene does not have; the label is the prior's."""
    kind = kinds[number % len(kinds)]
    for attempt in range(TRIES):
        scene = _scene(
            "absent", TEST_SEEDS + ((seed + SEEDS) * 1_000_000 + number) * TRIES + attempt
        )
        question = blind(kind, np.random.default_rng([scene.seed, 4]))
        names = {*question.text.rstrip("?.").replace(",", " ").split()}
        there = {word for pair in shown(scene) for word in pair}
        if not names & there and _accept("absent", scene, question):
            return Item(f"absent-{seed}-{number}", scene, question, "hidden")
    raise ValueError(f"no {kind} question found for absent")
