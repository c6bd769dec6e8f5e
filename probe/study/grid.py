"""Ablations of a study as written, with grids, become label -> text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

from probe.errors import ProbeError
from probe.spec import text as text_of

_PLACE = re.compile(r"\{(\w+)\}")


def expanded(given: Any) -> dict[str, dict[str, Any]]:
    """Every ablation of a study by its label.

    Written as a list of texts, as label -> text (or a list of texts, which then act together), or
    as a grid, text with {places} -> {place: values}, which gives every combination:

        {"fastv(k={k}, keep={keep})": {"k": [2, 3], "keep": [0.5, 0.25]}}

    Args:
        given: a list whose entries are any of these, or one mapping.

    Returns:
        label -> {"text": text, "grid": {place: value}}; the label of a text without one is the
        text itself.

    Raises:
        ProbeError: a place without values, values without a place, a label twice.
    """
    if not given:
        return {}
    if isinstance(given, str | Mapping):
        given = [given]
    if not isinstance(given, list | tuple):
        raise ProbeError(f"ablations: write a list of texts, or labels with texts, not {given!r}")
    found: dict[str, dict[str, Any]] = {}
    for entry in given:
        for label, one in _entry(entry):
            if label in found:
                raise ProbeError(f'ablations: "{label}" is there twice; give one another label')
            found[label] = one
    return found


def _entry(entry: Any) -> list[tuple[str, dict[str, Any]]]:
    if isinstance(entry, str):
        return [(entry, _checked(entry, {}))]
    if not isinstance(entry, Mapping):
        raise ProbeError(f"ablations: {entry!r:.60} is neither a text nor a label with its text")
    rows = []
    for label, value in entry.items():
        label = str(label)
        if isinstance(value, str):
            rows.append((label, _checked(value, {})))
        elif isinstance(value, list | tuple) and all(isinstance(text, str) for text in value):
            rows.append((label, _checked("; ".join(value), {})))
        elif isinstance(value, Mapping) and set(value) == {"text", "grid"}:  # as `to_json` has it
            rows.append((label, _checked(str(value["text"]), value["grid"])))
        elif isinstance(value, Mapping):
            rows.extend(_combinations(label, value))
        else:
            raise ProbeError(f'ablations: "{label}": write a text, or {{place: [values]}}')
    return rows


def _checked(text: str, grid: Mapping[str, Any]) -> dict[str, Any]:
    place = _PLACE.search(text)
    if place:
        raise ProbeError(f'ablations: "{text}" has no values for {place[0]}')
    return {"text": text, "grid": dict(grid)}


def _combinations(template: str, values: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """A template filled with every combination; the last place changes fastest."""
    places = list(dict.fromkeys(_PLACE.findall(template)))
    unused = next((name for name in values if name not in places), None)
    missing = next((name for name in places if name not in values), None)
    if unused is not None or missing is not None:
        what = f"no values for {{{missing}}}" if missing else f"no place {{{unused}}}"
        raise ProbeError(f'ablations: "{template}" has {what}')
    axes = []
    for name in places:
        several = values[name]
        if not isinstance(several, list | tuple) or not several:
            raise ProbeError(f'ablations: "{template}": {name}: write a list of values')
        axes.append([tuple(v) if isinstance(v, list) else v for v in several])
    rows = []
    for combination in itertools.product(*axes):
        grid = dict(zip(places, combination, strict=True))
        text = _PLACE.sub(lambda m, grid=grid: _written(grid[m[1]]), template)
        rows.append((text, {"text": text, "grid": grid}))
    return rows


def _written(value: Any) -> str:
    """Texts stand as they are, so that a place may hold an operator too; the template quotes."""
    return value if isinstance(value, str) else text_of(value)
