"""Captures and ablations as data: frozen dataclasses to and from JSON and short text."""

from __future__ import annotations

import ast
import importlib
import json
import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

from probe.errors import ProbeError

Layers = int | str | Sequence[int]
_OWN = re.compile(r"^([A-Za-z_][\w.]*):([A-Za-z_]\w*)(?=\(|$)")


@dataclass(frozen=True)
class Spec:
    """A frozen, hashable description. Lists and ranges given as arguments become tuples."""

    always_shown: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _freeze(getattr(self, field.name)))

    @property
    def kind(self) -> str:
        """Name in snake case, as in results, JSON and on the command line."""
        return snake(type(self).__name__)

    def to_json(self) -> dict[str, Any]:
        """Plain dict: `kind` and every field that differs from its default."""
        kind = self.kind
        if not type(self).__module__.startswith("probe."):
            kind = f"{type(self).__module__}:{type(self).__qualname__}"
        return {"kind": kind} | {
            name: _plain(value) for name, value in _changed(self) if value is not MISSING
        }

    def labelled(self, label: str) -> Any:
        """The same with a short name that `str` gives; a changed copy loses it."""
        import copy

        same = copy.copy(self)
        object.__setattr__(same, "_label", label)
        return same

    def __str__(self) -> str:
        """As it is written on the command line: the arguments that matter."""
        if "_label" in vars(self):
            return vars(self)["_label"]
        changed = dict(_changed(self))
        shown = [f.name for f in fields(self) if f.name in changed or f.name in self.always_shown]
        inner = ", ".join(f"{name}={text(getattr(self, name))}" for name in shown)
        return f"{type(self).__name__}({inner})"


class Lazy(Mapping[str, Callable]):
    """What may be written in texts and JSON by name, imported when it is asked for.

    Args:
        package: the package that has them as attributes.
        names: those of its attributes that count.
        beside: further names, of another package.
    """

    def __init__(
        self, package: str, names: Collection[str], beside: Mapping[str, Callable] | None = None
    ) -> None:
        self.package, self.names, self.beside = package, names, beside or {}

    def __getitem__(self, name: str) -> Callable:
        if name not in self.names:
            return self.beside[name]
        return getattr(importlib.import_module(self.package), name)

    def __iter__(self) -> Iterator[str]:
        return iter((*self.names, *self.beside))

    def __len__(self) -> int:
        return len(self.names) + len(self.beside)


def snake(name: str) -> str:
    """`AttentionMass` -> `attention_mass`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def resolve_layers(layers: Layers, count: int, owner: str) -> tuple[int, ...]:
    """Layers as sorted 0-based numbers: an int, a range or list, "all", "3", "2-5" or "3-".

    Raises:
        ProbeError: a layer that the model does not have, or no layer at all.
    """
    if isinstance(layers, str):
        match = re.fullmatch(r"\s*(\d+)\s*(?:(-)\s*(\d+)?\s*)?", layers)
        if layers.strip() == "all":
            chosen = list(range(count))
        elif match:
            first = int(match[1])
            last = match[3] or (count - 1 if match[2] else first)
            chosen = list(range(first, int(last) + 1)) or ([first] if not match[3] else [])
        else:
            raise ProbeError(f'{owner}: layers "{layers}" is not "all", "3", "2-5" or "3-"')
    else:
        try:
            several = layers if isinstance(layers, Sequence) else [layers]
            chosen = [operator.index(layer) for layer in several]
        except TypeError:
            raise ProbeError(f"{owner}: layers {layers!r} are not numbers of layers") from None
    bad = [layer for layer in chosen if not 0 <= layer < count]
    if bad or not chosen:
        what = f"layer {bad[0]} does not exist" if bad else "no layer is selected"
        raise ProbeError(f"{owner}: {what}; the model has layers 0 to {count - 1}")
    return tuple(sorted(set(chosen)))


def from_json(data: Mapping[str, Any], names: Mapping[str, Callable]) -> Any:
    """The object that `to_json` described.

    Raises:
        ProbeError: an unknown kind or argument.
    """
    arguments = {key: _rebuild(value, names) for key, value in data.items() if key != "kind"}
    kind = str(data.get("kind"))
    # A recipe may have the name that a class has in snake case; JSON has classes.
    classes = {snake(key): key for key in names if key[:1].isupper()}
    return _make(classes.get(kind, kind), names, (), arguments)


def parse(text: str, names: Mapping[str, Callable]) -> list:
    """Read `fastv(k=2, keep=0.5)` or `Knockout("video -> question"); edvt()` without eval.

    A class of one's own is written with its module: `my_module:MyCapture(layer=2)`.

    Returns:
        The objects, in the order written; a recipe that gives several is flattened.

    Raises:
        ProbeError: text that is not calls of known names with plain arguments.
    """
    try:
        body = ast.parse(_OWN.sub(r"\1.\2", text.strip()), mode="exec").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ProbeError(
            f"cannot read '{text}': write it as a call, for example fastv(k=2, keep=0.5)"
        ) from None
    found: list = []
    for statement in body:
        if not isinstance(statement, ast.Expr):
            raise ProbeError(f"cannot read '{text}': only calls of known names are allowed")
        value = statement.value
        for node in value.elts if isinstance(value, ast.List | ast.Tuple) else [value]:
            made = _evaluate(node, names, text)
            found.extend(made if isinstance(made, list | tuple) else [made])
    wrong = next((item for item in found if not isinstance(item, Spec)), None)
    if not found and body:
        raise ProbeError(f"'{text}' leaves everything as it is; there is nothing to take away")
    if wrong is not None or not found:
        raise ProbeError(
            f"cannot read '{text}': {wrong!r} is not a capture, an ablation or a diagnosis"
        )
    return found


def _evaluate(node: ast.AST, names: Mapping[str, Callable], text: str) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
        arguments = [_evaluate(argument, names, text) for argument in node.args]
        keywords = {k.arg or "**": _evaluate(k.value, names, text) for k in node.keywords}
        called = _called(node.func)
        known = {"range": range} if called == "range" else names
        return _make(called, known, arguments, keywords)
    if isinstance(node, ast.Name | ast.Attribute):
        return _make(_called(node), names, (), {})
    if isinstance(node, ast.List | ast.Tuple):
        return tuple(_evaluate(item, names, text) for item in node.elts)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise ProbeError(f"cannot read '{text}': only calls and plain values are allowed") from None


def _called(node: ast.Name | ast.Attribute) -> str:
    """`fastv`, or `module:Class` of a dotted name."""
    written = ast.unparse(node)
    module, _, name = written.rpartition(".")
    if not all(part.isidentifier() for part in written.split(".")):
        raise ProbeError(f"cannot read '{written}': only calls of known names are allowed")
    return f"{module}:{name}" if module else name


def _lookup(name: str, names: Mapping[str, Callable]) -> Callable:
    if name in names:
        return names[name]
    by_kind = {snake(key): key for key in names}
    if name in by_kind:
        return names[by_kind[name]]
    module, _, attribute = name.partition(":")
    if attribute:
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError):
            raise ProbeError(f"'{name}' cannot be imported") from None
        if not (isinstance(found, type) and issubclass(found, Spec)):
            raise ProbeError(f"'{name}' is not a capture, an ablation or a diagnosis")
        return found
    raise ProbeError(f"'{name}' is not known; there are {', '.join(sorted(names))}")


def _make(name: str, names: Mapping[str, Callable], arguments: Sequence, keywords: Mapping) -> Any:
    maker = _lookup(name, names)
    try:
        return maker(*arguments, **keywords)
    except (TypeError, ValueError) as error:
        reason = str(error).replace("__init__()", "").replace(f"{maker.__name__}()", "")
        raise ProbeError(f"{name}: {' '.join(reason.split())}") from None


def _changed(spec: Spec) -> list[tuple[str, Any]]:
    return [(f.name, v) for f in fields(spec) if (v := getattr(spec, f.name)) != f.default]


def _freeze(value: Any) -> Any:
    if isinstance(value, list | tuple | range):
        return tuple(_freeze(item) for item in value)
    return _freeze(value.tolist()) if hasattr(value, "tolist") else value  # NumPy


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.to_json()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _rebuild(value: Any, names: Mapping[str, Callable]) -> Any:
    if isinstance(value, Mapping):
        return from_json(value, names)
    return tuple(_rebuild(item, names) for item in value) if isinstance(value, list) else value


def text(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, tuple):
        return "[" + ", ".join(text(item) for item in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(value) if isinstance(value, Spec) else repr(value)
