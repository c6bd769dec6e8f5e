"""Components of a recipe, swapped: overrides by path, and the controls that every method gets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from probe import spec
from probe.errors import ProbeError
from probe.spec import Spec
from probe.spec import text as text_of

# A path such as `0.score` or `1.then.0.rest` in place of a keyword, which Python has no syntax for.
_PATH = re.compile(r"(?<=[(,])(\s*)((?:\d+|[a-z_]+)(?:\.(?:\d+|[a-z_]+))+)(\s*=)")


def parse(text: str, names: Mapping[str, Callable]) -> list:
    """Ablations from text, with paths among the arguments of a recipe.

    Raises:
        ProbeError: text that is not calls of known names, or a path that leads nowhere.
    """
    plain = _PATH.sub(lambda m: f"{m[1]}path__{m[2].replace('.', '__')}{m[3]}", text)
    return spec.parse(plain, _Wrapped(names))


class _Wrapped(Mapping[str, Callable]):
    """The same names; what they make takes paths among its arguments."""

    def __init__(self, names: Mapping[str, Callable]) -> None:
        self.names = names

    def __getitem__(self, name: str) -> Callable:
        return _with_paths(name, self.names[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _with_paths(name: str, made: Callable) -> Callable:
    def call(*args: Any, **kwargs: Any) -> Any:
        paths = {key: kwargs.pop(key) for key in list(kwargs) if key.startswith("path__")}
        found = made(*args, **kwargs)
        for key, value in paths.items():
            path = key.removeprefix("path__")
            changed = put(found, path.split("__"), value, name)
            found = _labelled(changed, found, f", {path.replace('__', '.')}={text_of(value)})")
        return found

    call.__name__ = getattr(made, "__name__", name)
    return call


def _labelled(changed: Any, before: Any, ending: str) -> Any:
    """The changed recipe with the names it had, `ending` in place of their last bracket."""
    if isinstance(changed, list | tuple):
        pairs = zip(changed, before, strict=True)
        return type(changed)(_labelled(one, old, ending) for one, old in pairs)
    if changed == before:
        return before
    old = vars(before).get("_label")
    if old is None:
        hidden = {"match": ()} if hasattr(changed, "match") else {}
        return changed.labelled(str(replace(changed, **hidden)))
    head, _, number = old.rpartition(")")
    return changed.labelled(f"{head}{ending}{number}")


def put(where: Any, path: Sequence[str], value: Any, owner: str) -> Any:
    """A recipe's result with one component replaced.

    Args:
        where: an operator, a component, or a list of them.
        path: names of fields and numbers in lists; for a single operator the leading "0" may be
            left out or given.
        value: what is put there.
        owner: whose path it is, for the error.

    Raises:
        ProbeError: no such component.
    """
    if not path:
        return value
    step, *further = path
    several = isinstance(where, list | tuple)
    if step.isdigit():
        if not several:
            return put(where, further, value, owner)
        if int(step) >= len(where):
            raise ProbeError(f"{owner}: there is no component {step}; there are {len(where)}")
        items = [
            put(item, further, value, owner) if number == int(step) else item
            for number, item in enumerate(where)
        ]
        return type(where)(items)
    if several or step not in (known := [field.name for field in fields(where)]):
        there = "a list; name a number first" if several else ", ".join(known)
        raise ProbeError(f"{owner}: there is no component '{step}'; there is {there}")
    return replace(where, **{step: put(getattr(where, step), further, value, owner)})


def controls(recipe: Any) -> dict[str, Any]:
    """The same recipe with one component swapped, at exactly the same number of tokens.

    Every reduction of the recipe is swapped at once: its scores for Random(0) and for Uniform(),
    its segmentation for whole frames at a fixed distance, its treatment of the rest for Drop(),
    its budget for an equal share. Where the swap alone would give another number of tokens, those
    of the lowest score leave, or dropped ones of the highest stay (`Reduce.match`).

    Args:
        recipe: what a recipe returned: one operator or a list of them.

    Returns:
        By what was swapped, such as "score=Random(seed=0)", the changed recipe; only those that
        differ from it.

    Raises:
        ProbeError: nothing in it has a component that can be swapped.
    """
    from probe.ablate.reduction.rest import Drop
    from probe.ablate.reduction.segment import Fixed
    from probe.ablate.scores import Random, Uniform

    swaps: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "score=Random(seed=0)": ("score", lambda old: Random(0)),
        "score=Uniform()": ("score", lambda old: Uniform()),
        "segment=Fixed(4)": ("segment", lambda old: Fixed(4)),
        "rest=Drop()": ("rest", lambda old: Drop()),
        "budget=Equal()": ("budget", _equal),
    }
    found = {}
    for name, (field, make) in swaps.items():
        changed = _everywhere(recipe, field, make)
        if changed != recipe:
            found[name] = _labelled(_counted(changed, recipe), recipe, f", {name})")
    if not found:
        raise ProbeError("controls: there is no reduction with a component to swap in it")
    return found


def _counted(changed: Any, recipe: Any) -> Any:
    """Reductions that differ from the recipe's are held to the recipe's own number of tokens."""
    from probe.ablate.plan import Plan

    if isinstance(changed, list | tuple):
        pairs = zip(changed, recipe, strict=True)
        return type(changed)(_counted(one, own) for one, own in pairs)
    if not isinstance(changed, Plan) or changed == recipe:
        return changed
    same = replace(changed, score=recipe.score) == recipe and not recipe.then and not recipe.pieces
    budget = recipe.steps[0].allowance()
    known = budget is not None and recipe.select.exact and budget.expected([100]) is not None
    return changed if same and known else replace(changed, match=recipe.steps)


def _equal(old: Any) -> Any:
    from probe.ablate.reduction.budget import Equal

    return Equal(
        old.keep, rounding=getattr(old, "rounding", "floor"), least=getattr(old, "least", 0)
    )


def _everywhere(where: Any, field: str, make: Callable[[Any], Any]) -> Any:
    """Every component of one kind below `where`, replaced."""
    if isinstance(where, list | tuple):
        return type(where)(_everywhere(item, field, make) for item in where)
    if not isinstance(where, Spec):
        return where
    changes: dict[str, Any] = {}
    for one in fields(where):
        old = getattr(where, one.name)
        if one.name == field and isinstance(old, Spec) and _swappable(field, old):
            changes[one.name] = make(old)
            if field == "score" and hasattr(where, "refresh"):  # of attention, which is not read
                changes["refresh"] = None
        elif one.name in ("pieces", "then"):
            changes[one.name] = _everywhere(old, field, make)
    changes = {name: new for name, new in changes.items() if new != getattr(where, name)}
    return replace(where, **changes) if changes else where


def _swappable(field: str, old: Spec) -> bool:
    from probe.ablate.reduction.segment import Whole

    if field == "segment":
        return type(old) is not Whole and type(old).__name__ not in ("PerFrame", "SameSegments")
    if field == "rest":  # a token that passes a layer by is not dropped
        return type(old).__name__ != "Bypass"
    return field != "budget" or hasattr(old, "keep")
