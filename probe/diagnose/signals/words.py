"""Words of an answer: which tokens each is made of, and which say something."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FUNCTION = frozenset(
    "a an the this that these those there here it its he she they is are was were be been being am "
    "do does did has have had will would can could may might shall should must of in on at to from "
    "by with for as into onto over under and or but nor so if then than too very".split()
)


@dataclass(frozen=True)
class Word:
    """A word of an answer.

    Attributes:
        text: as it stands in the answer.
        tokens: numbers of the answer's tokens that it overlaps.
        ids: their ids.
    """

    text: str
    tokens: tuple[int, ...]
    ids: tuple[int, ...]

    @property
    def lemma(self) -> str:
        """Lower case, without a plural's s."""
        return lemma(self.text)

    @property
    def content(self) -> bool:
        """It is no function word (article, auxiliary, preposition, conjunction, pronoun)."""
        return self.text.lower() not in FUNCTION


def words_of(tokenizer: Any, ids: Sequence[int]) -> tuple[Word, ...]:
    """Words by their characters in the decoded text, every occurrence one.

    A token that begins in one word and ends in the next belongs to both.

    Args:
        tokenizer: its `decode` is used on growing beginnings, so that tokens that are parts of a
            character, or lose a space at the start, have a place all the same.
        ids: of the answer, special tokens left out.
    """
    ends = [len(tokenizer.decode(list(ids[: n + 1]))) for n in range(len(ids))]
    text = tokenizer.decode(list(ids))
    starts = [0, *ends[:-1]]
    found = []
    for match in re.finditer(r"\w+(?:['’-]\w+)*", text):
        here = tuple(
            n for n, (a, b) in enumerate(zip(starts, ends, strict=True))
            if a < match.end() and b > match.start()
        )  # fmt: skip
        if here:
            found.append(Word(match.group(), here, tuple(int(ids[n]) for n in here)))
    return tuple(found)


def lemma(word: str) -> str:
    """`Boxes` -> `box`, `cats` -> `cat`: lower case, a plural's ending off; nothing else."""
    word = word.strip().lower()
    if re.fullmatch(r"\w+(?:s|x|z|ch|sh)es", word):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def spellings(tokenizer: Any, word: str) -> tuple[tuple[int, ...], ...]:
    """Token ids of a word by itself and behind a space, which byte-level vocabularies tell apart.

    Published detectors look only for the first token of the bare word, and miss words that the
    model writes with their space.
    """
    found = [
        tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (word, f" {word}")
    ]
    return tuple(dict.fromkeys(ids for ids in found if ids))
