"""A study from a file."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

from probe.errors import ProbeError
from probe.study.spec import Study
from probe.study.spec_check import importable


def read(path: Path) -> Study:
    """See `Study.read`."""
    if not path.is_file():
        raise ProbeError(f"{path}: no such file; give a study as YAML, JSON or Python")
    folder = str(path.resolve().parent)
    try:
        if path.suffix == ".py":
            with importable(folder):
                return replace(_python(path), folder=folder)
        data = _json(path) if path.suffix == ".json" else _yaml(path)
        return Study.from_mapping(data, folder)
    except ProbeError as error:
        raise ProbeError(f"{path}: {error}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProbeError(f"byte {error.start} is not UTF-8; save it as UTF-8") from None


def _yaml(path: Path) -> Any:
    import yaml

    try:
        return yaml.load(_text(path), _loader())
    except yaml.MarkedYAMLError as error:
        mark, what = error.problem_mark, error.problem or error.context or "cannot be read"
        where = f"line {mark.line + 1}: " if mark else ""
        raise ProbeError(f"{where}not YAML: {' '.join(what.split())}") from None
    except yaml.YAMLError as error:
        raise ProbeError(f"not YAML: {' '.join(str(error).split())}") from None


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise ProbeError(f"line {error.lineno}: not JSON: {error.msg}") from None


def _python(path: Path) -> Study:
    try:
        found = runpy.run_path(str(path)).get("study")
    except ProbeError:
        raise
    except Exception as error:
        raise ProbeError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error
    if not isinstance(found, Study):
        raise ProbeError("it does not define `study`, a probe.study.Study")
    return found


def _loader() -> Any:
    """YAML's safe loader that refuses a name given twice, of which the last would win."""
    import yaml

    class Once(yaml.SafeLoader):
        pass

    def pairs(loader: Any, node: Any) -> dict:
        keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
        for number, (key_node, _) in enumerate(node.value):
            key = keys[number]
            if key in keys[:number]:
                raise yaml.MarkedYAMLError(
                    problem=f'"{key}" is there twice', problem_mark=key_node.start_mark
                )
        return yaml.SafeLoader.construct_mapping(loader, node, deep=True)

    Once.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, pairs)
    return Once
