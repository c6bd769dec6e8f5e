"""What is asked about a clip, with its answer and the evidence that decides it."""

from __future__ import annotations

from dataclasses import dataclass

from probe.testbed.prior import likely
from probe.testbed.scene import Box

TYPES = ("color", "shape", "direction", "count", "order", "existence", "caption")
WORDINGS = {
    "color": ("What color is the {}?", "Which color does the {} have?"),
    "shape": ("What shape is the {} object?", "Which shape is {}?"),
    "direction": ("Which way does the {} move?", "In which direction does the {} move?"),
    "count": ("How many objects are there?", "How many shapes are in the video?"),
    "order": (
        "Which appears first, the {} or the {}?",
        "What comes first, the {} or the {}?",
    ),
    "existence": ("Is there a {}?", "Does a {} appear?"),
    "caption": ("Describe the video.", "What happens in the video?"),
}
Evidence = tuple[tuple[int, Box], ...]


@dataclass(frozen=True)
class Question:
    """One question about one clip.

    Attributes:
        type: one of `TYPES`.
        text: the question.
        answer: the label. Where nothing can be seen it comes from the prior.
        options: the possible answers, the right one among them.
        visible: the clip shows what decides the answer.
        evidence: (frame, box) pairs, in pixels, that decide it; empty where not visible.
        frame_range: first and last frame that it needs, or None.
        prior: the likely answer when nothing can be seen.
    """

    type: str
    text: str
    answer: str
    options: tuple[str, ...]
    visible: bool = True
    evidence: Evidence = ()
    frame_range: tuple[int, int] | None = None
    prior: str | None = None


def word(kind: str, *names: str, style: int = 0) -> str:
    """The words of a question; `style` chooses between two wordings."""
    return WORDINGS[kind][style].format(*names)


def prior_of(kind: str, *names: str) -> str:
    """The likely answer to a question about `names`, which it names as in its words."""
    if kind == "direction":
        return likely(kind, names[0].split()[-1])
    return likely(kind, names if kind == "order" else (names or ("",))[0])
