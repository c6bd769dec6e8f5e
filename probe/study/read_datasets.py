"""Rows of a Hugging Face data set that is on disk. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from probe.errors import ProbeError
from probe.study.read_files import Row


def rows(path: Path, split: str | None) -> Iterator[Row]:
    """Rows of what `save_to_disk` wrote, or of a folder with data files as on the hub.

    Args:
        path: the folder.
        split: which split, where there are several.

    Raises:
        ProbeError: no data set there, `datasets` is not installed, or a split that is missing.
    """
    data = _encoded(_one_split(_open(path), path, split))
    for number in range(len(data)):
        yield Row(path, number + 1, f"row {number + 1}", data[number])


def _open(path: Path) -> Any:
    try:
        import datasets
    except ImportError:
        raise ProbeError(
            f"{path}: reading it needs `datasets`; install probe with the extra [study]"
        ) from None
    if not path.is_dir():
        raise ProbeError(f"{path}: no such folder")
    saved = ("state.json", "dataset_dict.json")
    try:
        if any((path / name).is_file() for name in saved):
            return datasets.load_from_disk(str(path))
        return datasets.load_dataset(str(path))
    except Exception as error:  # of many kinds, from builders and Arrow
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ProbeError(f"{path}: cannot be read as a data set: {reason:.200}") from None


def _one_split(data: Any, path: Path, split: str | None) -> Any:
    if not isinstance(data, dict):
        return data
    names = list(data)
    if split is None and len(names) == 1:
        return data[names[0]]
    if split not in names:
        what = "name one with split:" if split is None else f'there is no split "{split}":'
        raise ProbeError(f"{path}: {what} {', '.join(names)}")
    return data[split]


def _encoded(data: Any) -> Any:
    """Images and clips as bytes or paths, not decoded for every row."""
    for name, feature in data.features.items():
        if getattr(feature, "decode", None):
            data = data.cast_column(name, type(feature)(decode=False))
    return data
