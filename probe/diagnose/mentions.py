"""What a caption mentions: words mapped to nodes, with their places, and CHAIR's counts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from probe.errors import ProbeError

Synonyms = Mapping[str, Sequence[str]]
"""Node -> its other words; a node is a word of its own."""

_IRREGULAR = {
    "men": "man", "women": "woman", "people": "person", "children": "child", "mice": "mouse",
    "feet": "foot", "teeth": "tooth", "geese": "goose", "knives": "knife", "wolves": "wolf",
    "shelves": "shelf", "leaves": "leaf", "loaves": "loaf", "scarves": "scarf", "lives": "life",
    "buses": "bus", "shoes": "shoe", "canoes": "canoe", "toes": "toe",
}  # fmt: skip
_ENDINGS = (
    ("ies", "y"), ("sses", "ss"), ("shes", "sh"), ("ches", "ch"), ("xes", "x"), ("oes", "o"),
)  # fmt: skip
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")


@dataclass(frozen=True)
class Mention:
    """One mention.

    Attributes:
        node: what is mentioned.
        start, end: its characters in the caption.
    """

    node: str
    start: int
    end: int


@dataclass(frozen=True)
class Counts:
    """CHAIR's counts of one caption.

    Attributes:
        mentions: all, repeated ones too.
        hallucinated: those whose node is not in the truth.
        found: nodes of the truth that are mentioned.
        truth: nodes of the truth.
        words: length of the caption.
    """

    mentions: int
    hallucinated: int
    found: int
    truth: int
    words: int


def read_synonyms(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Synonyms from a JSON object {"node": ["word", "two words"], ...}.

    Raises:
        ProbeError: a file of another form, or a word of two nodes.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        found = {str(node): tuple(map(str, words)) for node, words in data.items()}
        if any(isinstance(words, str) for words in data.values()):
            raise TypeError
    except OSError as error:
        raise ProbeError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, AttributeError):
        raise ProbeError(f'{path}: write {{"dog": ["puppy", "hound"], ...}}') from None
    phrases(found)
    return found


def mentions(caption: str, synonyms: Synonyms, ignored: Sequence[str] = ()) -> list[Mention]:
    """The mentions of nodes in a caption, in its order, the longest words first.

    Words are compared in lower case and in the singular; what is part of a longer known phrase is
    no mention of its own ("hot dog" mentions no dog).

    Args:
        caption: the text.
        synonyms: nodes and their words; words of several count as phrases.
        ignored: phrases that mention nothing, such as "toilet seat".

    Raises:
        ProbeError: a word that stands for two nodes.
    """
    known = phrases(synonyms)
    known |= {tuple(singular(w) for w in words_of(text)): "" for text in ignored}
    longest = max(map(len, known), default=0)
    places = list(_WORD.finditer(caption))
    words = [singular(place[0].lower()) for place in places]
    found, at = [], 0
    while at < len(words):
        sizes = range(min(longest, len(words) - at), 0, -1)
        size = next((n for n in sizes if tuple(words[at : at + n]) in known), 0)
        node = known.get(tuple(words[at : at + size]), "") if size else ""
        if node:
            found.append(Mention(node, places[at].start(), places[at + size - 1].end()))
        at += max(1, size)
    return found


def counts(caption: str, truth: Sequence[str], found: Sequence[Mention]) -> Counts:
    """What of a caption's mentions is true."""
    said, known = [mention.node for mention in found], set(truth)
    wrong = sum(node not in known for node in said)
    return Counts(len(said), wrong, len(known & set(said)), len(known), len(words_of(caption)))


def phrases(synonyms: Synonyms) -> dict[tuple[str, ...], str]:
    """Node of each phrase, as singular words.

    Raises:
        ProbeError: a phrase of two nodes.
    """
    known: dict[tuple[str, ...], str] = {}
    for node, words in synonyms.items():
        for text in (node, *words):
            phrase = tuple(singular(word) for word in words_of(text))
            if known.setdefault(phrase, node) != node:
                raise ProbeError(
                    f'synonyms: "{text}" stands for "{known[phrase]}" and for "{node}"'
                )
    return known


def words_of(text: str) -> list[str]:
    """Its words in lower case."""
    return [match.lower() for match in _WORD.findall(text)]


def singular(word: str) -> str:
    """A plural noun in the singular, by its ending; other words stay."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    for ending, stem in _ENDINGS:
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + stem
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word
