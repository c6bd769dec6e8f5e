"""What a processor made of a prompt: its own text, read from the call of its tokenizer."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from probe.errors import ProbeError


class Recorder:
    """Stands in for a tokenizer inside a copy of a processor, and keeps the last text it got.

    Attributes:
        text: the last text that was tokenized.
        written: what the processor wrote for each clip and each image, where it can be heard.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self.text = tokenizer, ""
        self.written: dict[str, list[str]] = {"video": [], "image": []}

    def __call__(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        """Tokenize as the tokenizer does."""
        self.text = text if isinstance(text, str) else text[0]
        return self._tokenizer(text, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def hear(self, kind: str, write: Callable[..., str]) -> Callable[..., str]:
        """The processor's function that writes a clip's or an image's tokens, overheard."""

        def heard(*args: Any, **kwargs: Any) -> str:
            self.written[kind].append(write(*args, **kwargs))
            return self.written[kind][-1]

        return heard

    def texts(self, known: dict[str, set[str]]) -> Callable[[list[str]], list[str] | None]:
        """From the placeholders in the order of the prompt, what was written for each of them."""

        def find(replaced: list[str]) -> list[str] | None:
            left = {kind: list(texts) for kind, texts in self.written.items()}
            kinds = ["image" if _names(known["image"], text) else "video" for text in replaced]
            if any(kinds.count(kind) != len(texts) for kind, texts in left.items()):
                return None
            return [left[kind].pop(0) for kind in kinds]

        return find


def recording(processor: Any) -> tuple[Any, Recorder]:
    """A shallow copy of a processor that records the text it tokenizes."""
    recorder = Recorder(processor.tokenizer)
    copied = copy.copy(processor)
    copied.tokenizer = recorder
    for kind in ("video", "image"):
        write = getattr(processor, f"replace_{kind}_token", None)
        if write is not None:
            setattr(copied, f"replace_{kind}_token", recorder.hear(kind, write))
    return copied, recorder


def _names(texts: set[str], replaced: str) -> bool:
    return any(text in replaced for text in texts)


@dataclass(frozen=True)
class Expansion:
    """A prompt and its expanded text.

    Attributes:
        literals: (start in the prompt, start in the text, length) of what was kept.
        inserted: (start, end) in the text of what stands for each clip or image.
        replaced: what stood for each in the prompt.
    """

    literals: tuple[tuple[int, int, int], ...]
    inserted: tuple[tuple[int, int], ...]
    replaced: tuple[str, ...]

    def at(self, place: int) -> int:
        """Where a character of a kept part of the prompt is in the text."""
        for start, there, length in self.literals:
            if start <= place <= start + length:
                return place - start + there
        raise ProbeError("the processor replaces text of the prompt; the layout cannot follow it")


def align(
    prompt: str,
    text: str,
    placeholder: re.Pattern,
    written: Callable[[list[str]], list[str] | None],
) -> Expansion:
    """Find the kept parts of a prompt in its expanded text.

    Args:
        prompt, text: before and after the processor's work.
        placeholder: what is replaced.
        written: what the processor wrote for the placeholders found, or None.

    Raises:
        ProbeError: the processor did something else than replace placeholders.
    """
    matches = list(placeholder.finditer(prompt))
    edges = [0, *(edge for match in matches for edge in match.span()), len(prompt)]
    kept = [(edges[i], prompt[edges[i] : edges[i + 1]]) for i in range(0, len(edges), 2)]
    heard = written([match[0] for match in matches])
    parts = [f"({re.escape(part)})" for _, part in kept]
    # A processor may put a start token in front of everything.
    found = None
    for between in (heard, None):
        middle = (
            ["(.*?)"] * len(matches) if between is None else [f"({re.escape(b)})" for b in between]
        )
        wanted = "".join(a + b for a, b in zip(parts, [*middle, ""], strict=True))
        found = found or re.fullmatch("(.*?)" + wanted, text, re.DOTALL)
    if found is None:
        raise ProbeError("the processor expands this prompt in a way the layout does not know")
    literals = [
        (start, found.start(2 + 2 * number), len(part)) for number, (start, part) in enumerate(kept)
    ]
    inserted = [found.span(3 + 2 * number) for number in range(len(matches))]
    return Expansion(tuple(literals), tuple(inserted), tuple(match[0] for match in matches))
