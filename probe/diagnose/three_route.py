"""Three routes to an answer about time: the video LLM, probes on its features, text alone.

After T3 (Li et al. 2024, "Temporal Reasoning Transfer from Text to Video"), whose probe is an LSTM
on visual features and whose events are others; here the probes are linear, on the vision features
and on every layer of the language model, and the clips are the testbed's. Where probes are right
and the model is not, what it lacks is not in the visual features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

    from probe.engine.result import Run
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel
    from probe.testbed import Scene


@dataclass(frozen=True)
class Task:
    """One question with the same answers for every scene, as often each.

    Attributes:
        question, answers: what is asked.
        scene: from the number of the answer and a seed to a scene with that answer.
    """

    question: str
    answers: tuple[str, ...]
    scene: Callable[[int, int], Scene]


def three_routes(
    model: VideoModel,
    tasks: Sequence[str] = ("attribute", "referring", "order"),
    n: int = 60,
    seed: int = 0,
    folds: int = 5,
    *,
    progress: Callable[[], object] = lambda: None,
) -> pd.DataFrame:
    """Accuracy of each route on made scenes whose answers are balanced.

    "video": the model's likeliest of the answers, by first tokens. "text": the same where a text
    says what is to be seen, without a clip; not for families that need one. "vision features":
    a linear probe on what leaves the projector, mean over each frame, frames side by side.
    "layer": the same on the residual stream that enters each layer, at the clip's tokens;
    "last token": at the token that emits the answer. Probes are logistic regressions on
    standardised features, tested on scenes that they were not fitted on (`folds` of them).

    Args:
        model: the model.
        tasks: "attribute" (colour of the only object), "referring" (shape of the red one of two),
            "order" (which of two comes first).
        n: scenes a task.
        seed: of the scenes.
        folds: of the cross-validation.
        progress: called after each scene.

    Returns:
        task, route, layer (-1 where there is none), accuracy, low, high (Wilson, 95 %), n, chance.

    Raises:
        ProbeError: an unknown task, or too few scenes for the folds.
    """
    import pandas as pd

    known = tasks_of()
    wrong = next((name for name in tasks if name not in known), None)
    if wrong is not None:
        raise ProbeError(f'three_routes: no task "{wrong}"; there are {", ".join(known)}')
    rows = []
    for name in tasks:
        task = known[name]
        if n < folds * len(task.answers):
            least = folds * len(task.answers)
            raise ProbeError(f'three_routes: "{name}" takes at least {least} scenes, not {n}')
        rows += [(name, *row) for row in _routes(model, task, n, seed, folds, progress)]
    columns = ["task", "route", "layer", "accuracy", "low", "high", "n", "chance"]
    return pd.DataFrame(rows, columns=columns)


def _routes(model, task, n, seed, folds, progress) -> list[tuple]:
    from probe.capture.activations import Activations
    from probe.diagnose.case import Case
    from probe.diagnose.linguistic_bias import log_probabilities

    labels = np.arange(n) % len(task.answers)
    said: dict[str, list[int]] = {"video": [], "text": []}
    features: dict[tuple[str, int], list[np.ndarray]] = {}
    capture = Activations("residual", "all")
    for number, label in enumerate(labels.tolist()):
        scene = task.scene(label, seed * 100_000 + number)
        x = encoded(model, scene, task.question)
        run = model.run(x, [capture])
        case = Case(model, x, task.answers[label], task.answers)
        said["video"].append(int(log_probabilities(case, run).argmax()))
        for layer, (frames, last) in enumerate(states(run, x, capture)):
            features.setdefault(("layer", layer), []).append(frames)
            features.setdefault(("last token", layer), []).append(last)
        if not model.family.needs_clip:
            told = model.encode(None, f"{rendering(scene)} {task.question}")
            read = log_probabilities(Case(model, told, case.gold, task.answers), model.run(told))
            said["text"].append(int(read.argmax()))
        progress()
    # What enters layer 0 at the clip's tokens is what leaves the projector.
    features[("vision features", -1)] = features[("layer", 0)]
    chance = 1 / len(task.answers)
    rows = []
    for route, answers in said.items():
        if answers:
            rows.append((route, -1, *scored(np.array(answers) == labels), n, chance))
    for (route, layer), some in features.items():
        if route == "layer" and layer == 0:
            continue
        right = predicted(np.stack(some), labels, folds) == labels
        rows.append((route, layer, *scored(right), n, chance))
    return rows


def states(
    run: Run, x: Example, capture
) -> list[tuple[Float[np.ndarray, " feature"], Float[np.ndarray, " channel"]]]:
    """For each layer: means over each frame's tokens, side by side, and the last token."""
    residual = run.of(capture)
    video, last = x.layout.select("video"), x.layout.last
    frame = x.layout.group[video]
    found = []
    for layer in range(residual.sizes["layer"]):
        whole = residual.isel(layer=layer).values
        parts = [whole[video[frame == number]].mean(0) for number in np.unique(frame)]
        found.append((np.concatenate(parts), whole[last]))
    return found


def predicted(
    features: Float[np.ndarray, "sample feature"], labels: np.ndarray, folds: int = 5
) -> np.ndarray:
    """Labels that a linear probe gives to samples that it was not fitted on [sample]."""
    from probe.study.statistics_extra import need

    linear, selection = need("sklearn.linear_model"), need("sklearn.model_selection")
    pipeline, scaling = need("sklearn.pipeline"), need("sklearn.preprocessing")

    probe = pipeline.make_pipeline(
        scaling.StandardScaler(), linear.LogisticRegression(C=0.1, max_iter=2000)
    )
    split = selection.StratifiedKFold(folds, shuffle=True, random_state=0)
    return np.asarray(
        selection.cross_val_predict(probe, features.astype(np.float64), labels, cv=split)
    )


def scored(right: np.ndarray) -> tuple[float, float, float]:
    """Share of right answers, with Wilson's 95 % interval."""
    from probe.testbed.accuracy import wilson

    return float(right.mean()), *wilson(int(right.sum()), len(right))


def encoded(model: VideoModel, scene: Scene, question: str) -> Example:
    """A scene as a clip with a question."""
    from probe.testbed import render

    pixels = render(scene)
    frames = model.family.frames or len(pixels)
    if frames != len(pixels):
        pixels = pixels[np.linspace(0, len(pixels) - 1, frames).round().astype(int)]
    return model.encode(pixels, question, frames=None, seconds=np.arange(len(pixels)) / 4)


def rendering(scene: Scene) -> str:
    """What is to be seen in a scene, in words and in the order of appearance."""
    things = sorted(scene.things, key=lambda thing: thing.first)
    told = [f"A {thing.name} appears in frame {thing.first + 1}." for thing in things]
    return " ".join(told)


def tasks_of() -> dict[str, Task]:
    """The tasks by name."""
    return {
        "attribute": Task("What color is the circle?", ("red", "blue"), _attribute),
        "referring": Task("What shape is the red object?", ("circle", "square", "star"), _refer),
        "order": Task(
            "Which appears first, the red circle or the blue square?",
            ("red circle", "blue square"),
            _order,
        ),
    }


def _attribute(label: int, seed: int) -> Scene:
    return _painted(_scene(seed, 1), [("circle", ("red", "blue")[label])])


def _refer(label: int, seed: int) -> Scene:
    shapes = ("circle", "square", "star")
    other = shapes[(label + 1 + seed // 3 % 2) % 3]
    return _painted(_scene(seed, 2), [(shapes[label], "red"), (other, "blue")])


def _order(label: int, seed: int) -> Scene:
    """Two things, one from the first frame on and one that comes at least five frames later."""
    kinds = [("circle", "red"), ("square", "blue")]
    for attempt in range(1000):
        scene = _scene(seed + 50_000 * attempt, 2)
        early, late = sorted(scene.things, key=lambda thing: thing.first)
        if late.first - early.first >= 5:
            back = replace(scene, things=(early, late))
            drawn = _painted(back, kinds if label == 0 else kinds[::-1])
            front = drawn.things if scene.things[0] is early else drawn.things[::-1]
            return replace(drawn, things=front)
    raise ProbeError("three_routes: no scene found for order")


def _scene(seed: int, objects: int) -> Scene:
    from probe.testbed import make_scene

    return make_scene((1 << 61) + seed, objects=objects)


def _painted(scene: Scene, kinds: Sequence[tuple[str, str]]) -> Scene:
    """The scene with other shapes and colours on its paths."""
    things = [
        replace(thing, shape=shape, color=color)
        for thing, (shape, color) in zip(scene.things, kinds, strict=True)
    ]
    return replace(scene, things=tuple(things))
