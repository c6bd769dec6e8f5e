"""What is made up: labels of answers and of their tokens where the truth is known."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from probe.testbed.scene import COLORS, MOTIONS, SHAPES

if TYPE_CHECKING:
    from probe.diagnose.signals.answer import Answer
    from probe.testbed.item import Item


def normalised(text: str) -> str:
    """Lower case, without articles, punctuation and double spaces; an article that is all there is
    stays, such as the letter "A" of an option.
    """
    words = re.sub(r"[^\w\s]", " ", text.lower()).split()
    return " ".join([word for word in words if word not in ("a", "an", "the")] or words)


def labels(answer: Answer) -> dict[str, float]:
    """Labels of a whole answer; NaN where the case does not say.

    Returns:
        right: 1 where the answer is the gold one after `normalised`. hidden: 1 where the clip does
        not show what decides the answer, so that any specific answer is made up. hallucinated: 1
        where it is hidden or not right, that is, not supported by the visible clip.
    """
    case, nan = answer.case, float("nan")
    right = nan if case.gold is None else float(normalised(answer.text) == normalised(case.gold))
    visible = getattr(getattr(case.truth, "question", None), "visible", None)
    hidden = nan if visible is None else float(not visible)
    hallucinated = nan if right != right or hidden != hidden else float(hidden or not right)
    return {"right": right, "hidden": hidden, "hallucinated": hallucinated}


def token_labels(answer: Answer) -> Float[np.ndarray, " token"]:
    """1 for each scored token that the clip does not support, 0 for those it does, NaN for
    function words and where the truth is not known.

    A short answer's tokens have the answer's label. In a caption of the testbed each mention
    "a <color> <shape> [moves] <motion>" is looked up in the scene: colour and shape are supported
    where such a thing is shown, the motion where one of that name moves so.
    """
    found = np.full(len(answer.scored), np.nan)
    if getattr(getattr(answer.case.truth, "question", None), "type", None) == "caption":
        return _caption(answer, answer.case.truth, found)
    found[answer.content] = labels(answer)["hallucinated"]
    return found


def _caption(answer: Answer, item: Item, found: np.ndarray) -> np.ndarray:
    things: list[Any] = [thing for thing in item.scene.things if not thing.hidden]
    color = shape = ""
    for word in answer.words:
        text, here = word.text.lower(), list(word.tokens)
        if text in COLORS:
            color, shape, at = text, "", here
            found[here] = float(color not in [thing.color for thing in things])
        elif text in SHAPES:
            shape = text
            wrong = float((color, shape) not in [(t.color, t.shape) for t in things])
            found[here] = wrong
            if color:
                found[at] = max(found[at[0]], wrong)
        elif text in MOTIONS:
            moving = [(t.color, t.shape, t.motion) for t in things]
            found[here] = float((color, shape, text) not in moving)
    return found
