"""Existence questions about testbed scenes, and a model's answers to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from probe.diagnose.object_questions import NEGATIVES, Objects, object_questions

if TYPE_CHECKING:
    import pandas as pd

    from probe.models.video_model import VideoModel
    from probe.testbed import Item, Scene


def existence_over(
    model: VideoModel,
    items: Sequence[tuple[Item, str]],
    *,
    progress: Callable[[], object] = lambda: None,
) -> pd.DataFrame:
    """`ObjectExistence` of each item, pooled by set.

    Args:
        model: the model.
        items: from `existence_items`.
        progress: called after each.
    """
    import pandas as pd

    from probe.diagnose.object_existence import ObjectExistence
    from probe.diagnose.testbed import case_of

    rows = []
    for item, kind in items:
        case = case_of(model, item)
        found = ObjectExistence().measure(case)
        rows.append({"sample": case.id, "video": case.video, "negatives": kind, **found})
        progress()
    return ObjectExistence().pool(pd.DataFrame(rows))


def existence_items(
    n: int = 100,
    negatives: Sequence[str] = (*NEGATIVES, "temporal"),
    per_video: int = 1,
    seed: int = 0,
) -> list[tuple[Item, str]]:
    """Testbed items with existence questions in the POPE manner, and the set of each.

    Objects are named by colour and shape. "temporal" cuts the clip to the frames in which an
    object is not there, or is, and asks for it; there are no order questions, since the testbed's
    models know none that are answered by yes or no.

    Args:
        n: scenes; each has at least `per_video` objects, none of whose colours is hidden.
        negatives: sets to make.
        per_video: positives, and negatives of each set, a scene.
        seed: of the scenes and of the choice.

    Raises:
        ProbeError: as in `object_questions`.
    """
    from probe import testbed

    drawn = testbed.items("neutral", n=n, seed=seed, types=["count"])
    scenes = {item.id: item for item in drawn}
    known = [Objects(i.id, tuple(t.name for t in i.scene.things)) for i in drawn]
    asked = object_questions(
        known,
        [kind for kind in negatives if kind != "temporal"],
        per_video,
        seed,
        "Is there a {object}?",
    )
    found = [
        (_item(scenes[q.video], scenes[q.video].scene, q.object, q.answer, number), q.negatives)
        for number, q in enumerate(asked)
    ]
    if "temporal" in negatives:
        for item in drawn:
            found += [(one, "temporal") for one in _cut(item)]
    return found


def _item(item: Item, scene: Scene, name: str, answer: str, number: int) -> Item:
    from probe.testbed.asking import YES_NO, shown

    things = [thing for thing in scene.things if answer == "no" or thing.name == name]
    question = replace(
        item.question,
        type="existence",
        text=f"Is there a {name}?",
        answer=answer,
        options=YES_NO,
        evidence=shown(things),
        frame_range=None,
        prior="yes",
    )
    return replace(item, id=f"{item.id}-{number}", scene=scene, question=question)


def _cut(item: Item) -> list[Item]:
    """The clip cut to where an object is absent, and to where it is present, as long as before."""
    found = []
    for thing in item.scene.things:
        away = np.setdiff1d(np.arange(item.scene.frames), thing.present)
        others = [t for t in item.scene.things if t is not thing and set(t.present) & set(away)]
        if len(away) < 4 or not others:
            continue
        for answer, frames in (("no", away), ("yes", np.array(thing.present))):
            found.append(_item(item, stretched(item.scene, frames), thing.name, answer, len(found)))
            found[-1] = replace(found[-1], id=f"{found[-1].id}-{thing.name}-{answer}")
    return found


def stretched(scene: Scene, frames: np.ndarray) -> Scene:
    """Some frames of a scene, each shown for longer, so that there are as many as before."""
    places = frames[np.arange(scene.frames) * len(frames) // scene.frames]
    things = tuple(
        replace(
            thing,
            boxes=tuple(thing.boxes[place] for place in places),
            visible=tuple(thing.visible[place] for place in places),
        )
        for thing in scene.things
        if any(thing.boxes[place] is not None for place in places)
    )
    return replace(scene, things=things)
