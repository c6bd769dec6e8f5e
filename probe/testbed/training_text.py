"""Questions as tokens, packed behind the clip that they are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probe.testbed.asking import ask, blind
from probe.testbed.question import TYPES, Question
from probe.testbed.scene import Scene

FIRST = "<|im_start|>"
SHARE = {
    "color": 1.2,
    "shape": 1.2,
    "direction": 2.0,
    "count": 1.0,
    "order": 2.0,
    "existence": 2.0,
    "caption": 1.0,
}


@dataclass(frozen=True)
class Pair:
    """A question and its answer as tokens that follow the clip.

    Attributes:
        ids: tokens after the video placeholder, up to the end of the answer.
        start: where the answer begins in `ids`.
        kind: number of the question's type in `TYPES`.
        visible: the clip decides the answer.
    """

    ids: tuple[int, ...]
    start: int
    kind: int
    visible: bool


@dataclass(frozen=True)
class Packed:
    """Pairs of several clips, as arrays [clip, token] of one length.

    Attributes:
        ids: tokens.
        segment: which pair a token belongs to, -1 for padding.
        offset: its place in the pair.
        target: the token to predict there, -100 where none is.
        kind: number of the question's type.
        visible: the clip decides the answer.
    """

    ids: np.ndarray
    segment: np.ndarray
    offset: np.ndarray
    target: np.ndarray
    kind: np.ndarray
    visible: np.ndarray


class Prompts:
    """Turns questions into tokens with the processor's own chat template."""

    def __init__(self, processor: Any, video: str = "<video>") -> None:
        self.tokenizer = processor.tokenizer
        self.processor = processor
        self.video = video
        head, self._tail = self._template()
        self.blind_head = (self.tokenizer.convert_tokens_to_ids(FIRST),)
        self._blind_tail = self._text([]).removeprefix(FIRST)
        self.head = tuple(self.tokenizer(head)["input_ids"])
        self._known: dict[str, tuple[int, ...]] = {}

    def head_with(self, system: str | None) -> tuple[int, ...]:
        """The tokens before the video, with a system message or without."""
        return tuple(self.tokenizer(self._template(system)[0])["input_ids"])

    def pair(self, question: Question, options: bool = False, blind: bool = False) -> Pair:
        """Tokens of a question and its answer.

        Args:
            question: the question.
            options: list them.
            blind: for a prompt without a clip; the tokens follow `blind_head`.
        """
        text = question.text
        if options:
            lines = [f"{chr(65 + n)}. {option}" for n, option in enumerate(question.options)]
            text = "\n".join([text, *lines])
        tail = self._blind_tail if blind else self._tail
        asked = self._tokens(tail.replace("QUESTION", text))
        answer = self._tokens(question.answer + self.tokenizer.eos_token)
        return Pair(asked + answer, len(asked), TYPES.index(question.type), question.visible)

    def _tokens(self, text: str) -> tuple[int, ...]:
        if text not in self._known:
            self._known[text] = tuple(self.tokenizer(text)["input_ids"])
        return self._known[text]

    def _template(self, system: str | None = None) -> tuple[str, str]:
        head, tail = self._text([{"type": "video"}], system).split(self.video)
        return head, tail

    def _text(self, content: list[dict[str, str]], system: str | None = None) -> str:
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": "QUESTION"}]}]
        if system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        return self.processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )


def pairs_of(scene: Scene, prompts: Prompts, rng: np.random.Generator) -> list[Pair]:
    """All pairs of a clip; one in ten lists its options."""
    questions = ask(scene, rng)
    if not questions:
        questions = [blind(kind, rng) for kind in TYPES for _ in range(2)]
    return [
        prompts.pair(question, question.type != "caption" and rng.random() < 0.1)
        for question in questions
    ]


def blind_pairs(prompts: Prompts, rng: np.random.Generator, count: int) -> list[Pair]:
    """Pairs for prompts without a clip."""
    return [
        prompts.pair(blind(str(rng.choice(TYPES)), rng), rng.random() < 0.1, blind=True)
        for _ in range(count)
    ]


def pack(
    clips: Sequence[Sequence[Pair]], length: int, rng: np.random.Generator, pad: int = 0
) -> Packed:
    """Choose pairs for each clip, with the types in proportion to `SHARE`, and lay them out."""
    shape = (len(clips), length)
    ids, offset = np.full(shape, pad, np.int64), np.zeros(shape, np.int64)
    segment, target = np.full(shape, -1, np.int64), np.full(shape, -100, np.int64)
    kind, visible = np.zeros(shape, np.int64), np.zeros(shape, bool)
    for row, pairs in enumerate(clips):
        at = 0
        for number, which in enumerate(_order(pairs, rng)):
            pair = pairs[which]
            size = len(pair.ids) - 1
            if at + size > length:
                continue
            span = slice(at, at + size)
            ids[row, span] = pair.ids[:-1]
            offset[row, span] = np.arange(size)
            segment[row, span] = number
            target[row, at + pair.start - 1 : at + size] = pair.ids[pair.start :]
            kind[row, span] = pair.kind
            visible[row, span] = pair.visible
            at += size
    return Packed(ids, segment, offset, target, kind, visible)


def _order(pairs: Sequence[Pair], rng: np.random.Generator) -> np.ndarray:
    """A random order in which types with many pairs do not come first more often."""
    kinds = np.array([pair.kind for pair in pairs])
    weight = np.array([SHARE[kind] for kind in TYPES])[kinds] / np.bincount(kinds)[kinds]
    return np.argsort(rng.exponential(size=len(pairs)) / weight)
