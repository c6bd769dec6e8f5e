"""What a processor made of a prompt: its own text, read from the call of its tokenizer."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any

from probe.errors import ProbeError


class Recorder:
    """Stands in for a tokenizer inside a copy of a processor, and keeps the last text it got."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self.text = tokenizer, ""

    def __call__(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        """Tokenize as the tokenizer does."""
        self.text = text if isinstance(text, str) else text[0]
        return self._tokenizer(text, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def recording(processor: Any) -> tuple[Any, Recorder]:
    """A shallow copy of a processor that records the text it tokenizes."""
    recorder = Recorder(processor.tokenizer)
    copied = copy.copy(processor)
    copied.tokenizer = recorder
    return copied, recorder


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


def align(prompt: str, text: str, placeholder: re.Pattern) -> Expansion:
    """Find the kept parts of a prompt in its expanded text.

    Raises:
        ProbeError: the processor did something else than replace placeholders.
    """
    matches = list(placeholder.finditer(prompt))
    edges = [0, *(edge for match in matches for edge in match.span()), len(prompt)]
    kept = [(edges[i], prompt[edges[i] : edges[i + 1]]) for i in range(0, len(edges), 2)]
    # A processor may put a start token in front of everything.
    wanted = "(.*?)" + "(.*?)".join(f"({re.escape(part)})" for _, part in kept)
    found = re.fullmatch(wanted, text, re.DOTALL)
    if found is None:
        raise ProbeError("the processor expands this prompt in a way the layout does not know")
    literals = [
        (start, found.start(2 + 2 * number), len(part)) for number, (start, part) in enumerate(kept)
    ]
    inserted = [found.span(3 + 2 * number) for number in range(len(matches))]
    return Expansion(tuple(literals), tuple(inserted), tuple(match[0] for match in matches))
