"""A study's results as one table in a file, for pandas, R, DuckDB or a spreadsheet."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

KINDS = (".parquet", ".csv")


def export(table: pd.DataFrame, path: Path) -> None:
    """Write a table, whole or not at all.

    Args:
        table: as `Store.table()` gives it; cells that are lists or mappings are written as JSON.
        path: a .parquet or .csv file; one that is there is replaced.

    Raises:
        ProbeError: another kind of file, a folder that is not there, a file that cannot be written.
    """
    check(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    flat = _flat(table)
    try:
        if path.suffix.lower() == ".parquet":
            flat.to_parquet(part, index=False)
        else:
            flat.to_csv(part, index=False)
        part.replace(path)
    except OSError as error:
        raise ProbeError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        part.unlink(missing_ok=True)


def check(path: Path) -> None:
    """Refuse a file that `export` cannot write.

    Raises:
        ProbeError: it cannot.
    """
    if path.suffix.lower() not in KINDS:
        raise ProbeError(f"{path}: export writes {' or '.join(KINDS)} files")
    if not path.parent.is_dir():
        raise ProbeError(f"{path.parent}: is no folder; make it first")
    if path.is_dir():
        raise ProbeError(f"{path}: is a folder")


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of one type each: text where a column of objects mixes several."""
    flat = table.copy()
    for name in flat.columns:
        column = flat[name]
        if column.dtype != object:
            continue
        kinds = {type(value) for value in column if value is not None and value == value}
        if len(kinds) > 1 or kinds & {list, dict, tuple}:
            flat[name] = [_text(value) for value in column]
    return flat


def _text(value: object) -> str | None:
    if value is None or value != value:
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
