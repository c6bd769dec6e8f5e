"""Testbed items as cases: the right answer, the possible ones and the whole truth are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probe.diagnose.case import Case
from probe.diagnose.items import encode_item

if TYPE_CHECKING:
    from probe.models.video_model import VideoModel
    from probe.testbed import Item


def case_of(model: VideoModel, item: Item, frames: int = 16, seed: int = 0) -> Case:
    """A testbed item as a case. Captions have no answers to choose from.

    Args:
        model: the model.
        item: from `probe.testbed.items`.
        frames: how many the model is shown.
        seed: of everything random in the diagnoses.
    """
    question = item.question
    several = question.options if len(question.options) > 1 else ()
    return Case(
        model,
        encode_item(model, item, frames),
        question.answer,
        several,
        id=item.id,
        video=str(item.scene.seed),
        seed=seed,
        truth=item,
        meta={"type": question.type, "split": item.split, "visible": question.visible},
    )
