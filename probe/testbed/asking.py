"""The questions that a scene answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from probe.testbed.prior import COUNTS, choices, draw, phrase
from probe.testbed.question import Evidence, Question, prior_of, word
from probe.testbed.scene import COLORS, MOTIONS, SHAPES, Scene, Thing

SHOWN = 0.25
YES_NO = ("yes", "no")


def ask(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """Every question that is unambiguous in this scene, each in one of its wordings.

    Of existence there are as many "yes" as "no", and half of the "no" are hard: the shape is
    there in another colour.
    """
    if scene.medium != "scene":
        return []
    makers = (_colors, _shapes, _directions, _count, _orders, _existence, _caption)
    return [question for make in makers for question in make(scene, rng)]


def blind(kind: str, rng: np.random.Generator) -> Question:
    """A question for a clip that shows nothing, or for no clip; the label is from the prior."""
    names = _names(kind, rng)
    about: str | tuple[str, ...] = names if kind == "order" else (names or ("",))[0]
    if kind == "direction":
        about = names[0].split()[-1]
    answer = draw(kind, about, rng)
    options = (answer,) if kind == "caption" else choices(kind, about)
    if kind in ("color", "shape"):
        options = _pick(options, answer, rng)
    return Question(
        kind,
        _style(kind, rng, *names),
        answer,
        options,
        visible=False,
        prior=prior_of(kind, *names),
    )


def shown(things: Iterable[Thing]) -> Evidence:
    """The boxes of things in the frames in which at least a quarter of them is seen."""
    return tuple(
        (frame, box)
        for thing in things
        for frame in thing.present
        if thing.visible[frame] >= SHOWN and (box := thing.boxes[frame]) is not None
    )


def caption(things: Sequence[Thing]) -> str:
    """One phrase for each thing, in the order of `SHAPES`, then of `COLORS`."""
    known = sorted(things, key=lambda t: (SHAPES.index(t.shape), COLORS.index(t.color)))
    return " and ".join(f"a {thing.name} {phrase(thing.motion)}" for thing in known)


def _names(kind: str, rng: np.random.Generator) -> tuple[str, ...]:
    shape, color = str(rng.choice(SHAPES)), str(rng.choice(COLORS))
    match kind:
        case "color":
            return (shape,)
        case "shape":
            return (color,)
        case "direction":
            return (shape if rng.random() < 0.3 else f"{color} {shape}",)
        case "existence":
            return (f"{color} {shape}",)
        case "order":
            other = str(rng.choice([c for c in COLORS if c != color]))
            return f"{color} {shape}", f"{other} {rng.choice(SHAPES)}"
    return ()


def _style(kind: str, rng: np.random.Generator, *names: str) -> str:
    return word(kind, *names, style=int(rng.integers(2)))


def _pick(all_of: Sequence[str], answer: str, rng: np.random.Generator) -> tuple[str, ...]:
    """Four options, the answer among them, in a random order."""
    others = rng.permutation([option for option in all_of if option != answer])[:3]
    return tuple(str(option) for option in rng.permutation([answer, *others]))


def _span(evidence: Evidence) -> tuple[int, int]:
    frames = [frame for frame, _ in evidence]
    return min(frames), max(frames)


def _question(kind, rng, names, answer, options, things, visible=True, evidence=None) -> Question:
    found = (shown(things) if evidence is None else evidence) if visible else ()
    prior = prior_of(kind, *names)
    span = _span(found) if found else None
    text = _style(kind, rng, *names)
    return Question(kind, text, answer, tuple(options), visible, found, span, prior)


def _alone(scene: Scene, thing: Thing) -> bool:
    return [other.shape for other in scene.things].count(thing.shape) == 1


def _colors(scene: Scene, rng: np.random.Generator) -> list[Question]:
    return [
        _question("color", rng, (thing.shape,), thing.color, _pick(COLORS, thing.color, rng),
                  [thing], not thing.hidden)
        for thing in scene.things if _alone(scene, thing)
    ]  # fmt: skip


def _shapes(scene: Scene, rng: np.random.Generator) -> list[Question]:
    colors = [thing.color for thing in scene.things]
    return [
        _question("shape", rng, (t.color,), t.shape, _pick(SHAPES, t.shape, rng), [t])
        for t in scene.things if not t.hidden and colors.count(t.color) == 1
    ]  # fmt: skip


def _directions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    found = []
    for thing in scene.things:
        short = _alone(scene, thing) and (thing.hidden or rng.random() < 0.3)
        if short or not thing.hidden:
            names = (thing.shape if short else thing.name,)
            found.append(_question("direction", rng, names, thing.motion, MOTIONS, [thing]))
    return found


def _count(scene: Scene, rng: np.random.Generator) -> list[Question]:
    return [_question("count", rng, (), str(len(scene.things)), COUNTS, scene.things)]


def _orders(scene: Scene, rng: np.random.Generator) -> list[Question]:
    gap = scene.frames * 5 // 16
    found = []
    for first in scene.things:
        for second in scene.things:
            hidden = first.hidden or second.hidden
            if second.first - first.first < gap or hidden or first.color == second.color:
                continue
            names = tuple(str(n) for n in rng.permutation([first.name, second.name]))
            until = [
                (f, first.boxes[f]) for f in first.present
                if f <= second.first and first.visible[f] >= SHOWN
            ]  # fmt: skip
            entry = [(f, second.boxes[f]) for f in second.present[:2]]
            evidence = tuple(until + entry)
            found.append(_question("order", rng, names, first.name, names, (), True, evidence))
    return found


def _existence(scene: Scene, rng: np.random.Generator) -> list[Question]:
    plain = [thing for thing in scene.things if not thing.hidden]
    veiled = {thing.shape for thing in scene.things if thing.hidden}
    there = {(thing.shape, thing.color) for thing in scene.things}
    found = [
        _question("existence", rng, (thing.name,), "yes", YES_NO, [thing], not thing.hidden)
        for thing in scene.things
    ]
    for number in range(len(scene.things)):
        hard = plain and number % 2 == int(scene.seed % 2)
        shapes = [t.shape for t in plain] if hard else [s for s in SHAPES if s not in veiled]
        if not hard and plain and rng.random() < 0.5:
            colors: Sequence[str] = [thing.color for thing in plain]
        else:
            colors = COLORS
        seen = {thing.shape for thing in plain}
        pairs = [
            (shape, color) for shape in dict.fromkeys(shapes) for color in dict.fromkeys(colors)
            if (shape, color) not in there and (hard or shape not in seen)
        ]  # fmt: skip
        if pairs:
            shape, color = pairs[rng.integers(len(pairs))]
            names = (f"{color} {shape}",)
            found.append(_question("existence", rng, names, "no", YES_NO, scene.things))
    for thing in scene.things:
        if thing.hidden:
            color = str(rng.choice([c for c in COLORS if c != thing.color]))
            names = (f"{color} {thing.shape}",)
            found.append(_question("existence", rng, names, "no", YES_NO, [thing], False))
    return found


def _caption(scene: Scene, rng: np.random.Generator) -> list[Question]:
    if len(scene.things) > 3:
        return []
    text = caption(scene.things)
    visible = not any(thing.hidden for thing in scene.things)
    return [_question("caption", rng, (), text, (text,), scene.things, visible)]
