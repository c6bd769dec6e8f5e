"""Samples from the testbed, whose whole truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError
from probe.study.sample import Sample
from probe.study.spec_check import hint, strings

if TYPE_CHECKING:
    from probe.study.task import Task


def check(given: Mapping[str, Any]) -> None:
    """Refuse what the testbed does not have.

    Raises:
        ProbeError: an unknown split or type.
    """
    from probe.testbed.item import SPLITS
    from probe.testbed.question import TYPES

    split, types = given.get("split", "neutral"), strings(given.get("types"), "samples: types")
    if split not in SPLITS:
        raise ProbeError(f'samples: split: "{split}" is none; {hint(str(split), SPLITS)}')
    there = TYPES if split == "neutral" else TYPES[:-1]
    wrong = next((one for one in types if one not in there), None)
    if wrong is not None:
        raise ProbeError(f'samples: types: "{wrong}" is none of {split}; {hint(wrong, there)}')
    if not isinstance(given.get("twins", False), bool):
        raise ProbeError(f"samples: twins: write true or false, not {given['twins']!r}")


def read(given: Mapping[str, Any], task: Task, seed: int) -> list[Sample]:
    """Testbed items as samples: short answers among their options; no captions in a choice.

    Raises:
        ProbeError: an item that the task cannot ask.
    """
    from probe.testbed import items
    from probe.testbed.question import TYPES

    split = given.get("split", "neutral")
    types = strings(given.get("types"), "samples: types") or _fitting(task, split, TYPES)
    drawn = items(split, given.get("n") or 100, seed, types, given.get("twins", False))
    found = []
    for row, item in enumerate(drawn, 1):
        question = item.question
        meta = {"type": question.type, "split": item.split, "visible": question.visible}
        several = question.options if len(question.options) > 1 else ()
        sample = Sample(
            item.id, item, question.text, question.answer, several,
            str(item.scene.seed), row, meta=meta,
        )  # fmt: skip
        try:
            task.check(sample)
        except ProbeError as error:
            raise ProbeError(f"samples: {item.id}: {error}") from None
        found.append(sample)
    return found


def _fitting(task: Task, split: str, types: tuple[str, ...]) -> list[str]:
    """Types that a task can ask."""
    only = {"yesno": ["existence"], "caption": ["caption"]}
    if task.kind in only:
        return only[task.kind]
    whole = task.kind == "open" and split == "neutral"
    return [one for one in types if whole or one != "caption"]
