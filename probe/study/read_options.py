"""Options and right answers, however a file writes them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

from probe.errors import ProbeError

# "A. red", "(B) red", "3) red", "Option 2: red", "Sentence A: red"
_LISTED = re.compile(
    r"^\s*(?:(?:option|sentence|caption|candidate|choice)\s+)?\(?([A-Za-z]|\d{1,2})[.):]\s*(\S.*)$",
    re.IGNORECASE,
)


def split_listed(text: str) -> tuple[str, list[str]]:
    """A text whose last lines are options: what is before them, and the options.

    Lines count when their marks are A, B, C, ... or 1, 2, 3, ... from the first on; fewer than two
    are none.
    """
    lines = text.rstrip().split("\n")
    for start in range(len(lines)):
        found = [_LISTED.match(line) for line in lines[start:]]
        several = [match for match in found if match]
        if len(found) < 2 or len(several) < len(found):
            continue
        if _in_order([match[1] for match in several]):
            return "\n".join(lines[:start]).rstrip(), [match[2].strip() for match in several]
    return text, []


def _in_order(marks: Sequence[str]) -> bool:
    count = len(marks)
    letters = [chr(65 + number) for number in range(count)]
    numbers = [str(number) for number in range(1, count + 1)]
    return [mark.upper() for mark in marks] == letters or list(marks) == numbers


def options_of(value: Any) -> list[str]:
    """Options as plain texts, without the letters that some files put in front of them.

    Args:
        value: a list, a JSON or Python list as text, or text with an option a line.

    Raises:
        ProbeError: neither.
    """
    if isinstance(value, str):
        value = _as_list(value)
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list | tuple) or any(isinstance(v, list | dict) for v in value):
        raise ProbeError(f"options: {value!r:.60} is no list of texts")
    texts = [str(one).strip() for one in value if one is not None]
    marked = [_LISTED.match(text) for text in texts]
    found = [match for match in marked if match]
    if len(texts) > 1 and len(found) == len(texts) and _in_order([match[1] for match in found]):
        return [match[2].strip() for match in found]
    return texts


def _as_list(text: str) -> Any:
    stripped = text.strip()
    if stripped.startswith("["):
        for read in (json.loads, ast.literal_eval):
            try:
                return read(stripped)
            except (ValueError, SyntaxError):
                continue
        raise ProbeError(f"options: {text!r:.60} is no list")
    listed = split_listed(text)[1]
    return listed or [line for line in stripped.split("\n") if line.strip()]


def answer_of(value: Any, options: Sequence[str], how: str) -> str:
    """The right answer as the text of an option.

    Args:
        value: a letter, the text of an option with or without its letter, or its number from 0.
        options: texts; without any the answer is the value as it stands.
        how: "text", "letter" or "index"; "auto" takes whichever fits.

    Raises:
        ProbeError: it is none of the options, or means two of them.
    """
    text = "" if value is None else str(value).strip()
    if isinstance(value, bool) and not options:
        return "yes" if value else "no"
    if not options:
        return text
    by = {"text": _by_text, "letter": _by_letter, "index": _by_index}
    if how != "auto":
        number = by[how](text, options)
    else:
        readings = {name: read(text, options) for name, read in by.items()}
        number = next((n for n in readings.values() if n is not None), None)
        letter = readings["letter"]
        if readings["text"] is not None and letter is not None and letter != number:
            raise ProbeError(
                f'the answer "{text}" is a letter and the text of another option; '
                "say which with fields: {answer_as: letter} or text"
            )
    if number is None:
        last = chr(64 + len(options))
        raise ProbeError(
            f'the answer "{text:.60}" is none of the {len(options)} options (A to {last})'
        )
    return options[number]


def _by_text(text: str, options: Sequence[str]) -> int | None:
    if list(options).count(text) == 1:
        return list(options).index(text)
    match = _LISTED.match(text)
    if match and match[2].strip() in options:
        return list(options).index(match[2].strip())
    return None


def _by_letter(text: str, options: Sequence[str]) -> int | None:
    match = re.fullmatch(r"\(?([A-Za-z])[.)]?", text)
    number = ord(match[1].upper()) - 65 if match else -1
    return number if 0 <= number < len(options) else None


def _by_index(text: str, options: Sequence[str]) -> int | None:
    return int(text) if text.isdigit() and int(text) < len(options) else None
