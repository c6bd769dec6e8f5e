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

import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError
from probe.study import fingerprint, store_files
from probe.study.store_files import VERSION, Writer

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["VERSION", "Store", "Writer"]


class Store:
    """Results in a folder, which many workers write at the same time.

    Args:
        folder: where.
        light: hold results without their numbers and arrays, for who only asks what is there.

    Attributes:
        folder: where.
        damaged: lines that were left out because they are torn or changed, at the last reading.
        results: by key, as of the last `refresh`.
    """

    def __init__(self, folder: str | Path, *, light: bool = False) -> None:
        self.folder, self.light = Path(folder), light
        self.damaged = 0
        self._offsets: dict[Path, int] = {}
        self._torn: dict[Path, int] = {}
        self.results: dict[str, dict[str, Any]] = {}

    # -- what is asked ---------------------------------------------------------------------

    @property
    def manifest(self) -> dict[str, Any]:
        """The study as last run: study (its spec), fingerprint, code, setting, samples, cells.

        Raises:
            ProbeError: no study was run in this folder.
        """
        found = store_files.read(self.folder / "study.json")
        if found is None:
            raise ProbeError(f"{self.folder}: no study here; `probe study run SPEC` makes one")
        return found

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """Name -> hash of the weights, of those models that were loaded so far."""
        known = {name: store_files.read(self.folder / _model_file(name)) for name in names}
        return {name: data["hash"] for name, data in known.items() if data is not None}

    def describe(self, manifest: Mapping[str, Any]) -> None:
        """Write what is asked, whole or not at all."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise ProbeError(f"{self.folder}: cannot be made ({reason})") from None
        store_files.write(self.folder / "study.json", manifest)

    def describe_model(self, name: str, digest: str) -> None:
        """Write the hash of a model's weights."""
        store_files.write(self.folder / _model_file(name), {"name": name, "hash": digest})

    # -- results ---------------------------------------------------------------------------

    def writer(self, worker: str) -> Writer:
        """A new file for a worker's results."""
        return Writer(self.folder / f"results-{worker}-{uuid.uuid4().hex[:8]}.jsonl")

    def records(self) -> Iterator[dict[str, Any]]:
        """Every line that was ever written here, file by file; torn and changed ones left out."""
        self.damaged = 0
        for path in sorted(self.folder.glob("results-*.jsonl")):
            found, _, damaged = store_files.lines(path, 0)
            self.damaged += damaged
            yield from (record for record in found if record is not None)

    def refresh(self) -> dict[str, dict[str, Any]]:
        """Results by key, with those that were written since the last call.

        Of several with one key the earliest without an error counts; where there is none, the
        latest with one. A result carries what its line says of worker, time and seconds.
        """
        for path in sorted(self.folder.glob("results-*.jsonl")):
            before = self._offsets.get(path, 0)
            if path.stat().st_size == before:
                continue
            found, behind, damaged = store_files.lines(path, before)
            torn = damaged - sum(record is None for record in found)
            self.damaged += damaged - self._torn.get(path, 0)
            self._offsets[path], self._torn[path] = behind, torn
            for record in found:
                if record is not None:
                    self._merge(record)
        return self.results

    def _merge(self, record: Mapping[str, Any]) -> None:
        about = {name: record[name] for name in ("worker", "time", "seconds")}
        for cell in record["cells"]:
            made, old = cell | about, self.results.get(cell["key"])
            if old is None or _rank(made) < _rank(old):
                if self.light:
                    made = {n: v for n, v in made.items() if n not in ("values", "arrays")}
                self.results[cell["key"]] = made

    def asked(self, label: str | None = None) -> Iterator[tuple[str, Mapping, Mapping, str]]:
        """(model, sample, cell, key) of everything the study as last run asks for, in its order;
        of one label where it is given.
        """
        from probe.study.cell import Cell

        manifest = self.manifest
        cells = [(c, Cell(**c)) for c in manifest["cells"] if label in (None, c["label"])]
        for model, digest in self.digests(manifest["models"]).items():
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


def _rank(cell: Mapping[str, Any]) -> tuple:
    """Of two results of one cell, the one with the smaller rank counts."""
    failed = bool(cell["error"])
    return failed, -cell["time"] if failed else cell["time"], cell["worker"]


def _model_file(name: str) -> str:
    return f"model-{fingerprint.of(name)[:16]}.json"
