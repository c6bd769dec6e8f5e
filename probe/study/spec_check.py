"""Checks of plain values of a study, each refused in one line that names the field."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from probe.errors import ProbeError


def hint(name: str, there: Iterable[str]) -> str:
    """A guess what was meant, and all there is."""
    names = [str(one) for one in there]
    near = difflib.get_close_matches(name, names, 1)
    return (f'did you mean "{near[0]}"? ' if near else "") + f"there is {', '.join(names)}"


def known(data: Mapping[str, Any], names: Iterable[str], owner: str) -> None:
    """Refuse a field that does not exist.

    Raises:
        ProbeError: with the nearest one that does.
    """
    names = list(names)
    wrong = next((name for name in data if name not in names), None)
    if wrong is not None:
        where = f"{owner}: " if owner else ""
        raise ProbeError(f"{where}{wrong}: no such field; {hint(str(wrong), names)}")


def mapping(value: Any, owner: str) -> Mapping[str, Any]:
    """A mapping; None is an empty one.

    Raises:
        ProbeError: anything else.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ProbeError(f"{owner}: write names with their values, not {value!r:.60}")
    return value


def strings(value: Any, owner: str) -> tuple[str, ...]:
    """Texts; one alone may stand without a list.

    Raises:
        ProbeError: anything else.
    """
    several = [value] if isinstance(value, str) else value
    if several is None:
        return ()
    if not isinstance(several, list | tuple) or any(not isinstance(s, str) for s in several):
        raise ProbeError(f"{owner}: write a list of texts, not {value!r:.60}")
    return tuple(several)


def whole(value: Any, owner: str, least: int) -> int:
    """A whole number.

    Raises:
        ProbeError: anything else, or a smaller one.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ProbeError(f"{owner}: a whole number of at least {least}, not {value!r:.60}")
    return value


@contextmanager
def importable(folder: str) -> Iterator[None]:
    """Modules in a folder can be imported, as those beside a study can be named in it."""
    added = folder not in sys.path
    if added:
        sys.path.append(folder)
    try:
        yield
    finally:
        if added:
            sys.path.remove(folder)
