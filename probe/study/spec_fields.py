"""The fields of a study, from every way in which they may be written to one.

Each takes its own result back unchanged.

Raises:
    ProbeError: in one line that begins with the field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from probe.errors import ProbeError
from probe.study.cell import REDUCTIONS
from probe.study.grid import expanded as ablations
from probe.study.spec_check import known, mapping, strings, whole
from probe.study.task import Task

__all__ = ["ablations", "captures", "controls", "models", "task"]

CONTROLS = {"blind": False, "random": 0, "uniform": False, "swaps": False}


def models(given: Any) -> tuple[Mapping[str, Any], ...]:
    """Each as {"model": name, ...}."""
    several = [given] if isinstance(given, str | Mapping) else given
    if not isinstance(several, Sequence) or not several:
        raise ProbeError("models: name at least one, for example testbed/onevision")
    found = []
    for one in several:
        made = {"model": one} if isinstance(one, str) else dict(mapping(one, "models"))
        if not isinstance(made.get("model"), str):
            raise ProbeError(f"models: {one!r}: write the name, or model: NAME with its arguments")
        if made in found:
            raise ProbeError(f"models: {made['model']} is there twice with the same arguments")
        found.append(made)
    return tuple(found)


def task(given: Any, samples: Any) -> Task:
    """A task; testbed questions have short answers, and are asked as they stand."""
    if isinstance(given, Task):
        return given
    plain = dict(mapping(given, "task"))
    if isinstance(samples, Mapping) and samples.get("source") == "testbed":
        plain = {"prompt": "{question}"} | plain
    return Task.from_mapping(plain)


def controls(given: Any) -> Mapping[str, Any]:
    """All of them, with what was not given switched off."""
    data = dict(mapping(given, "controls"))
    known(data, list(CONTROLS), "controls")
    found = CONTROLS | data
    whole(found["random"], "controls: random", 0)
    for name in ("blind", "uniform", "swaps"):
        if not isinstance(found[name], bool):
            raise ProbeError(f"controls: {name}: write true or false, not {found[name]!r}")
    return found


def captures(given: Any) -> Mapping[str, Any]:
    """By label, {"capture": text, "reduce": how}."""
    found = {}
    for label, one in mapping(given, "captures").items():
        owner = f"captures: {label}"
        data = {"capture": one} if isinstance(one, str) else dict(mapping(one, owner))
        known(data, ["capture", "reduce"], owner)
        how = dict(mapping(data.get("reduce"), f"{owner}: reduce"))
        known(how, ["sel", "isel", *REDUCTIONS], f"{owner}: reduce")
        for name, value in how.items():
            inside = f"{owner}: reduce: {name}"
            how[name] = (
                list(strings(value, inside)) if name in REDUCTIONS else dict(mapping(value, inside))
            )
        if not isinstance(data.get("capture"), str):
            raise ProbeError(f"{owner}: write capture: TEXT, such as AttentionMass()")
        found[str(label)] = {"capture": data["capture"], "reduce": how}
    return found
