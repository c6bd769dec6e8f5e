"""Rows of data files, each with where it is."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probe.errors import ProbeError

ENDINGS = {
    "jsonl": (".jsonl", ".json"),
    "json": (".json", ".jsonl"),
    "csv": (".csv", ".tsv"),
    "parquet": (".parquet",),
}


@dataclass(frozen=True)
class Row:
    """One row of a file.

    Attributes:
        file: it is in.
        number: the first is 1; a header does not count.
        place: "row 3", or "row 3, line 5" where both can be told.
        values: by column.
        error: why it cannot be read; "" where it can.
    """

    file: Path
    number: int
    place: str
    values: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


def files(paths: list[str], folder: str, endings: tuple[str, ...]) -> list[Path]:
    """Files that are named by paths, folders and patterns, in order of their names.

    Raises:
        ProbeError: nothing is there.
    """
    found: list[Path] = []
    for text in paths:
        path = Path(folder, Path(text).expanduser())
        if path.is_file():
            found.append(path)
            continue
        if path.is_dir():
            inside = [p for p in path.rglob("*") if p.suffix.lower() in endings and p.is_file()]
        else:
            inside = list(Path(folder).glob(text)) if _pattern(text) else []
        if not inside:
            what = (
                f"no file that ends in {' or '.join(endings)}" if path.is_dir() else "no such file"
            )
            raise ProbeError(f"{path}: {what}")
        found.extend(sorted(inside))
    return list(dict.fromkeys(found))


def _pattern(text: str) -> bool:
    return any(mark in text for mark in "*?[") and not Path(text).is_absolute()


def rows(path: Path) -> Iterator[Row]:
    """The rows of one file, by its ending. Text is UTF-8; JSON may be lines or one list.

    A row that cannot be read is given with its error, so that all of them can be counted.

    Raises:
        ProbeError: the file as a whole cannot be read.
    """
    ending = path.suffix.lower()
    if ending == ".parquet":
        return _parquet(path)
    if ending in (".csv", ".tsv"):
        return _csv(path, "\t" if ending == ".tsv" else ",")
    if ending in (".json", ".jsonl"):
        return _json(path)
    raise ProbeError(f"{path}: rows are read from .jsonl, .json, .csv, .tsv and .parquet")


def _lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """Lines with their numbers; None where one is not UTF-8."""
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ProbeError(f"{path}: is UTF-16; save it as UTF-8")
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            yield number, line.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError:
            yield number, None


def _json(path: Path) -> Iterator[Row]:
    start = path.read_bytes()[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"[" or (start == b"{" and path.suffix == ".json" and not _is_lines(path)):
        yield from _json_whole(path)
        return
    for number, line in _lines(path):
        if line is None:
            yield Row(path, number, f"row {number}", error="is not UTF-8; save the file as UTF-8")
        elif line.strip():
            yield _json_row(path, number, line)


def _is_lines(path: Path) -> bool:
    """Whether a .json file has an object a line, as POPE's have: the first line is one by itself
    and more follow, or it is one row.
    """
    said = (line for _, line in _lines(path) if line is None or line.strip())
    first, more = next(said, None), next(said, "")
    try:
        row = json.loads(first or "")
    except json.JSONDecodeError:
        return False
    return more != "" or not all(isinstance(value, dict) for value in row.values())


def _json_row(path: Path, number: int, line: str) -> Row:
    place = f"row {number}"
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        return Row(path, number, place, error=f"is not JSON: {error.msg} at character {error.pos}")
    if not isinstance(values, dict):
        return Row(path, number, place, error='is no object {"column": value}')
    return Row(path, number, place, values)


def _json_whole(path: Path) -> Iterator[Row]:
    bad = next((number for number, line in _lines(path) if line is None), None)
    if bad is not None:
        raise ProbeError(f"{path}: line {bad}: is not UTF-8; save the file as UTF-8")
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ProbeError(f"{path}: line {error.lineno}: is not JSON: {error.msg}") from None
    for number, values in enumerate(_flat(data), 1):
        error = "" if isinstance(values, dict) else 'is no object {"column": value}'
        yield Row(path, number, f"row {number}", values if not error else {}, error)


def _flat(data: Any) -> Iterator[Any]:
    """A list of rows; {video: {aspect: [rows]}} as TempCompass has it; {id: row}; or one row."""
    if isinstance(data, list):
        yield from data
        return
    if not data or not all(isinstance(value, dict) for value in data.values()):
        yield data
        return
    for name, inside in data.items():
        if not all(isinstance(several, list) for several in inside.values()):
            yield {"id": name} | inside
            continue
        for aspect, several in inside.items():
            for number, row in enumerate(several):
                yield {"video_id": name, "dim": aspect, "number": number} | row


def _csv(path: Path, delimiter: str) -> Iterator[Row]:
    bad: set[int] = set()
    text = []
    for number, line in _lines(path):
        if line is None:
            bad.add(number)
        text.append(line or "")
    reader = csv.reader(io.StringIO("\n".join(text), newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    number, before = 0, 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ProbeError(f"{path}: line {reader.line_num}: is not CSV: {error}") from None
        first, before = before + 1, reader.line_num
        broken = bad & set(range(first, before + 1))
        if header is None:
            if broken:
                raise ProbeError(f"{path}: line {first}: is not UTF-8; save the file as UTF-8")
            header = cells
            continue
        if not cells and not broken:
            continue
        number += 1
        error = "is not UTF-8; save the file as UTF-8" if broken else ""
        if not error and len(cells) != len(header):
            error = f"has {len(cells)} cells, and the header {len(header)}"
        values = {} if error else dict(zip(header, cells, strict=True))
        yield Row(path, number, f"row {number}, line {first}", values, error)


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ProbeError(f"{path}: is not parquet: {' '.join(str(error).split())}") from None
    number = 0
    with file:
        for batch in file.iter_batches(batch_size=256):
            for values in batch.to_pylist():
                number += 1
                yield Row(path, number, f"row {number}", values)
