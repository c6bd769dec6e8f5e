"""The files of a store: lines that are whole or not there, JSON that is replaced as a whole."""

from __future__ import annotations

import json
import os
import re
import uuid
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from probe.errors import ProbeError

VERSION = 1
_SUM = re.compile(rb', "sum": "([0-9a-f]{8})"\}$')


class Writer:
    """Appends results to one file; each line is on the disk when `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: Any = None

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line.

        Raises:
            ProbeError: the disk is full, or the folder cannot be written.
        """
        try:
            if self._opened is None:
                self._opened = self.path.open("ab")
                _sync_folder(self.path.parent)
            self._opened.write(line(record))
            self._opened.flush()
            os.fsync(self._opened.fileno())
        except OSError as error:
            reason = error.strerror or error
            raise ProbeError(f"{self.path}: cannot be written ({reason})") from None

    def close(self) -> None:
        """Close the file; what could not be written was said by `append`."""
        if self._opened is not None:
            with suppress(OSError):
                self._opened.close()


def line(record: Mapping[str, Any]) -> bytes:
    """A record as JSON on a line that ends in a checksum of itself."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
    return text[:-1] + f', "sum": "{zlib.crc32(text):08x}"}}\n'.encode()


def lines(path: Path, offset: int) -> tuple[list[dict[str, Any] | None], int, int]:
    """Records of a file from an offset on, None for a damaged one; the offset behind the last
    whole line; and how many are damaged or torn.
    """
    with path.open("rb") as opened:
        opened.seek(offset)
        whole, _, torn = opened.read().rpartition(b"\n")
    found = [_record(line) for line in whole.split(b"\n")] if whole else []
    damaged = sum(one is None for one in found) + bool(torn)
    return found, offset + (len(whole) + 1 if whole else 0), damaged


def _record(line: bytes) -> dict[str, Any] | None:
    """A line whose checksum is right; None for any other."""
    found = _SUM.search(line)
    if found is None:
        return None
    text = line[: found.start()] + b"}"
    if zlib.crc32(text) != int(found[1], 16):
        return None
    record = json.loads(text)
    return record if record.get("v") == VERSION else None


def read(path: Path) -> dict[str, Any] | None:
    """A JSON file; None where there is none.

    Raises:
        ProbeError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise ProbeError(f"{path}: is not JSON any more; run the study again") from None


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Replace a JSON file, whole or not at all; one that is as it should be stays.

    Raises:
        ProbeError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    text = json.dumps(data, ensure_ascii=False).encode()
    try:
        if path.exists() and path.read_bytes() == text:
            return
        with part.open("wb") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise ProbeError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """A new name is on the disk too, where the system can say so of a folder (Windows cannot)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
