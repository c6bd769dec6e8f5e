"""Test items: a clip, a question about it, and whether its answer can be seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from probe.testbed.asking import ask, blind
from probe.testbed.clip import write_clip
from probe.testbed.drawing import render
from probe.testbed.generator import make_scene
from probe.testbed.prior import COLOR_OF
from probe.testbed.question import TYPES, Question, prior_of, word
from probe.testbed.scene import Scene

SPLITS = ("neutral", "hidden", "counter-prior")
TEST_SEEDS = 1 << 32
TRIES = 1000
Make = Callable[..., Scene]
Accept = Callable[[Scene, Question], bool]


@dataclass(frozen=True)
class Item:
    """One test item.

    Attributes:
        id: its name, the same whenever it is drawn again.
        scene: the clip as data.
        question: what is asked, with answer and evidence.
        split: "neutral", "hidden" or "counter-prior".
    """

    id: str
    scene: Scene
    question: Question
    split: str

    def frames(self) -> np.ndarray:
        """The clip: uint8 [time, height, width, 3]."""
        return render(self.scene)

    def write(self, path: str | Path) -> Path:
        """Write the clip as mp4."""
        return write_clip(path, self.frames())


def items(
    split: str = "neutral",
    n: int = 100,
    seed: int = 0,
    types: Sequence[str] | None = None,
    twins: bool = False,
    make: Make = make_scene,
    accept: Accept = lambda scene, question: True,
) -> list[Item]:
    """Draw test items that training has not seen. Types take turns.

    Args:
        split: "neutral": the clip shows the answer. "hidden": it does not, and the answer is the
            likely one by the prior. "counter-prior": it shows one that the prior speaks against.
        n: how many.
        seed: items of another seed are other clips.
        types: question types; all by default, but captions are neutral only.
        twins: objects may share a colour, which makes them harder to tell apart.
        make: draws a scene as `make_scene` does.
        accept: of a scene and a question, whether they may become an item.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split}; there are {', '.join(SPLITS)}")
    known = TYPES if split == "neutral" else TYPES[:-1]
    kinds = tuple(types) if types else known
    for kind in kinds:
        if kind not in known:
            raise ValueError(f"no {kind} questions in {split}; there are {', '.join(known)}")
    draw = _hidden if split == "hidden" else _visible
    how = (seed, split, twins, make, accept)
    name = f"{split}-twins" if twins else split
    return [
        Item(f"{name}-{seed}-{number}", *draw(kinds, number, *how), split) for number in range(n)
    ]


def _seed(seed: int, number: int, attempt: int) -> int:
    return TEST_SEEDS + (seed * 1_000_000 + number) * TRIES + attempt


def _visible(
    kinds: Sequence[str],
    number: int,
    seed: int,
    split: str,
    twins: bool,
    make: Make,
    accept: Accept,
) -> tuple[Scene, Question]:
    kind, turn = kinds[number % len(kinds)], number // len(kinds)
    for attempt in range(TRIES):
        scene = make(_seed(seed, number, attempt), twins=twins)
        rng = np.random.default_rng([scene.seed, 4])
        found = [q for q in ask(scene, rng) if q.type == kind and _fits(q, scene, turn, split)]
        found = [question for question in found if accept(scene, question)]
        if found:
            return scene, found[rng.integers(len(found))]
    raise ValueError(f"no {kind} question found for {split}")


def _fits(question: Question, scene: Scene, turn: int, split: str) -> bool:
    if split == "counter-prior":
        return question.answer != question.prior
    if question.type != "existence":
        return True
    if question.answer != ("yes", "no")[turn % 2]:
        return False
    return question.answer == "yes" or is_hard(question, scene) == bool(turn // 2 % 2)


def is_hard(question: Question, scene: Scene) -> bool:
    """An existence question whose shape is there, but in another colour."""
    shape = next(part for part in question.text[:-1].split() if part in COLOR_OF)
    return question.answer == "no" and shape in [thing.shape for thing in scene.things]


def _hidden(
    kinds: Sequence[str],
    number: int,
    seed: int,
    split: str,
    twins: bool,
    make: Make,
    accept: Accept,
) -> tuple[Scene, Question]:
    kind, turn = kinds[number % len(kinds)], number // len(kinds)
    for attempt in range(TRIES):
        scene = make(_seed(seed, number, attempt), hidden=True, twins=twins)
        rng = np.random.default_rng([scene.seed, 4])
        if kind in ("color", "existence") and turn % 4 != 3:
            question = _veiled(kind, scene, rng)
        else:
            scene = make(scene.seed, medium="noise" if turn % 2 else "blank")
            question = _likely(blind(kind, rng))
        if accept(scene, question):
            return scene, question
    raise ValueError(f"no {kind} question found for {split}")


def _veiled(kind: str, scene: Scene, rng: np.random.Generator) -> Question:
    """About the first object whose colour is hidden: its colour, or whether it has the likely."""
    shape = next(thing.shape for thing in scene.things if thing.hidden)
    names = (shape,) if kind == "color" else (f"{COLOR_OF[shape]} {shape}",)
    question = next(q for q in ask(scene, rng) if q.type == kind and not q.visible)
    text = word(kind, *names, style=int(rng.integers(2)))
    return _likely(replace(question, text=text, prior=prior_of(kind, *names)))


def _likely(question: Question) -> Question:
    """The question with the prior's answer as its label."""
    if question.prior in question.options:
        return replace(question, answer=question.prior)
    options = (question.prior, *question.options[1:])
    return replace(question, answer=question.prior, options=options)
