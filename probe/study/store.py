"""The folder of a study: what was asked, and every result, written so that nothing is lost.

    study.json          the study as last run: spec, version of the code, samples, cells
    model-*.json        the hash of each model's weights, as last loaded
    results-*.jsonl     one file for each worker, only ever appended to; a line holds the results
                        of one sample on one model and ends in a checksum of itself
    claims/             who works on what (`probe.study.claim`)

A result is named by a key over everything it depends on (`Cell.key`). What the study as last run
asks for is looked up by key, so results of another spec, model or version stay out of its table
and are there again when it is run as before.
"""

from __future__ import annotations

import json
import os
import re
import uuid
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError
from probe.study import fingerprint

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

VERSION = 1
_SUM = re.compile(rb', "sum": "([0-9a-f]{8})"\}$')


class Store:
    """Results in a folder, which many workers write at the same time.

    Attributes:
        folder: where.
        damaged: lines that were left out because they are torn or changed, at the last reading.
        results: by key, as of the last `refresh`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.damaged = 0
        self._offsets: dict[Path, int] = {}
        self.results: dict[str, dict[str, Any]] = {}

    # -- what is asked ---------------------------------------------------------------------

    @property
    def manifest(self) -> dict[str, Any]:
        """The study as last run: study (its spec), fingerprint, code, setting, samples, cells.

        Raises:
            ProbeError: no study was run in this folder.
        """
        found = _read(self.folder / "study.json")
        if found is None:
            raise ProbeError(f"{self.folder}: no study here; `probe study run SPEC` makes one")
        return found

    @property
    def models(self) -> dict[str, str]:
        """Name -> hash of the weights, of the models of the study that were loaded so far."""
        found = {}
        for name in self.manifest["models"]:
            known = _read(self.folder / _model_file(name))
            if known is not None:
                found[name] = known["hash"]
        return found

    def describe(self, manifest: Mapping[str, Any]) -> None:
        """Write what is asked, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.folder / "study.json", manifest)

    def describe_model(self, name: str, digest: str) -> None:
        """Write the hash of a model's weights."""
        _write(self.folder / _model_file(name), {"name": name, "hash": digest})

    # -- results ---------------------------------------------------------------------------

    def writer(self, worker: str) -> Writer:
        """A new file for a worker's results."""
        return Writer(self.folder / f"results-{worker}-{uuid.uuid4().hex[:8]}.jsonl")

    def records(self) -> Iterator[dict[str, Any]]:
        """Every line that was ever written here, file by file; torn and changed ones left out."""
        self.damaged = 0
        for path in sorted(self.folder.glob("results-*.jsonl")):
            for record in self._lines(path, 0)[0]:
                if record is not None:
                    yield record

    def refresh(self) -> dict[str, dict[str, Any]]:
        """Results by key, with those that were written since the last call.

        Of several with one key the earliest without an error counts; where there is none, the
        latest with one. A result carries what its line says of worker, time and seconds.
        """
        for path in sorted(self.folder.glob("results-*.jsonl")):
            before = self._offsets.get(path, 0)
            if path.stat().st_size == before:
                continue
            lines, self._offsets[path] = self._lines(path, before)
            for record in lines:
                if record is not None:
                    self._merge(record)
        return self.results

    def _merge(self, record: Mapping[str, Any]) -> None:
        about = {name: record[name] for name in ("worker", "time", "seconds")}
        for cell in record["cells"]:
            made, old = cell | about, self.results.get(cell["key"])
            if old is None or _rank(made) < _rank(old):
                self.results[cell["key"]] = made

    def _lines(self, path: Path, offset: int) -> tuple[list[dict | None], int]:
        """Records from an offset on, None for a damaged one, and the offset behind them."""
        with path.open("rb") as opened:
            opened.seek(offset)
            whole, _, torn = opened.read().rpartition(b"\n")
        found = [_record(line) for line in whole.split(b"\n")] if whole else []
        self.damaged += sum(one is None for one in found) + bool(torn)
        return found, offset + (len(whole) + 1 if whole else 0)

    def asked(self) -> Iterator[tuple[str, Mapping, Mapping, str]]:
        """(model, sample, cell, key) of everything the study as last run asks for, in its order."""
        from probe.study.cell import Cell

        manifest, models = self.manifest, self.models
        cells = [(cell, Cell(**cell)) for cell in manifest["cells"]]
        for model, digest in models.items():
            for sample in manifest["samples"]:
                for cell, made in cells:
                    about = sample["fingerprint"], manifest["setting"], manifest["code"]
                    yield model, sample, cell, made.key(digest, *about)

    # -- views -----------------------------------------------------------------------------

    def table(self) -> pd.DataFrame:
        """A row for each result of the study as last run, in the study's order.

        Columns: study, model, sample, video, the columns of the samples, role, label, of, seed,
        the columns of the grid, the scores and other numbers, error, seconds, worker, key.
        Column names of samples that are taken get "sample_" in front.

        Raises:
            ProbeError: no study was run in this folder.
        """
        from probe.study.store_table import table

        return table(self)

    def arrays(self, label: str) -> dict[str, xr.DataArray]:
        """The arrays of a capture or a diagnosis, name -> [sample, ...] with model and video.

        Raises:
            ProbeError: no such label in the study.
        """
        from probe.study.store_table import arrays

        return arrays(self, label)

    def status(self) -> dict[str, Any]:
        """How far it is: jobs, done, cells, computed, failed, damaged_lines, claims, errors."""
        from probe.study.store_table import status

        return status(self)


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
            self._opened.write(_line(record))
            self._opened.flush()
            os.fsync(self._opened.fileno())
        except OSError as error:
            reason = error.strerror or error
            raise ProbeError(f"{self.path}: cannot be written ({reason})") from None

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()


def _rank(cell: Mapping[str, Any]) -> tuple:
    """Of two results of one cell, the one with the smaller rank counts."""
    failed = bool(cell["error"])
    return failed, -cell["time"] if failed else cell["time"], cell["worker"]


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
    return text[:-1] + f', "sum": "{zlib.crc32(text):08x}"}}\n'.encode()


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


def _model_file(name: str) -> str:
    return f"model-{fingerprint.of(name)[:16]}.json"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise ProbeError(f"{path}: is not JSON any more; run the study again") from None


def _write(path: Path, data: Mapping[str, Any]) -> None:
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    text = json.dumps(data, ensure_ascii=False)
    try:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        with part.open("w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise ProbeError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
