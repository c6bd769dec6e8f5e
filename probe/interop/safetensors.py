"""Activations in a safetensors file, read back slice by slice.

Tensors are stored under the names of the result's variables; dims, coordinates and attributes go
into the file's metadata as JSON, so that the file is complete and any other reader of
safetensors can use it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

    from probe.engine.result import Run

KEY = "probe"
TYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "U8": "u1", "BOOL": "?"}


def save_activations(run: Run, path: str | Path, names: Sequence[str] | None = None) -> Path:
    """Write a run's activations to a safetensors file, whole or not at all.

    Args:
        run: a run with numbers to save.
        path: the file.
        names: variables of `run.data`; all whose name starts with "activations" by default.

    Raises:
        ProbeError: nothing to save, a variable that is not numbers, or a file that cannot be
            written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = Path(path)
    if names is None:
        names = [str(name) for name in run.data.data_vars if str(name).startswith("activations")]
    missing = [name for name in names if name not in run.data]
    if missing or not names:
        raise ProbeError(
            f"{missing[0] if missing else 'activations'}: not in this run; capture Activations(), "
            f"or name one of {', '.join(map(str, run.data.data_vars)) or 'the data it has'}"
        )
    about: dict[str, Any] = {"variables": {}, "meta": run.meta}
    tensors: dict[str, np.ndarray] = {}
    for name in names:
        array = run.data[name]
        if array.dtype.kind not in "fiub":
            raise ProbeError(f"{name}: is text; a safetensors file holds numbers")
        coords = {str(dim): array.coords[dim].values.tolist() for dim in array.dims}
        about["variables"][name] = {"coords": coords, "attrs": dict(array.attrs)}
        tensors[name] = np.ascontiguousarray(array.values)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProbeError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        save_file(tensors, part, {KEY: json.dumps(about)})
        part.rename(path)
    except (OSError, SafetensorError) as error:
        raise ProbeError(f"{path}: cannot be written ({error})") from None
    finally:
        part.unlink(missing_ok=True)
    return path


def open_activations(path: str | Path, name: str | None = None) -> xr.DataArray:
    """Open one variable of a file from `save_activations`; slices are read when they are used.

    `open_activations(path).sel(layer=3, position=[40, 41]).values` reads those numbers alone.

    Args:
        path: the file.
        name: which variable; the first one by default.

    Raises:
        ProbeError: not such a file, or a variable that it does not have.
    """
    import xarray as xr
    from safetensors import safe_open

    about = _header(path)
    name = name if name is not None else next(iter(about))
    if name not in about:
        raise ProbeError(f"{path}: has no '{name}'; there are {', '.join(about)}")
    with safe_open(path, framework="np") as file:
        stored = file.get_slice(name)
        shape, dtype = tuple(stored.get_shape()), TYPES[stored.get_dtype()]
    lazy = indexing.LazilyIndexedArray(_Stored(str(path), name, shape, dtype))
    coords = about[name]["coords"]
    data = xr.Variable(tuple(coords), lazy, about[name]["attrs"])
    return xr.DataArray(data, coords=coords, name=name)


def variables(path: str | Path) -> dict[str, dict[str, Any]]:
    """Attributes of every variable in a file from `save_activations`.

    Raises:
        ProbeError: not such a file.
    """
    return {name: one["attrs"] for name, one in _header(path).items()}


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU.

    Raises:
        ProbeError: not such a file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ProbeError(f"{path}: not a safetensors file ({error})") from None


def _header(path: str | Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return json.loads(file.metadata()[KEY])["variables"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        raise ProbeError(f"{path}: not a file of activations saved by probe") from None


class _Stored(BackendArray):
    """One tensor of a file, indexed without reading the rest."""

    def __init__(self, path: str, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self.path, self.name, self.shape, self.dtype = path, name, shape, np.dtype(dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> np.ndarray:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple) -> np.ndarray:
        """Read an outer index: per dim the contiguous runs it needs, then the key within them."""
        from safetensors import safe_open

        needed = [_needed(one, size) for one, size in zip(key, self.shape, strict=True)]
        with safe_open(self.path, framework="np") as file:
            found = self._runs(file.get_slice(self.name), [runs for runs, _ in needed], ())
        for dim in reversed(range(len(needed))):  # an integer takes its dim away
            found = found[(slice(None),) * dim + (needed[dim][1],)]
        return np.asarray(found)

    def _runs(self, stored: Any, runs: list[list[slice]], block: tuple) -> np.ndarray:
        """All combinations of runs, put together."""
        dim = len(block)
        if dim == len(runs):
            return stored[block] if block else stored[...]
        if not runs[dim]:
            shape = [sum(run.stop - run.start for run in several) for several in runs]
            return np.empty([*(b.stop - b.start for b in block), *shape[dim:]], self.dtype)
        parts = [self._runs(stored, runs, (*block, run)) for run in runs[dim]]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=dim)


def _needed(key: Any, size: int) -> tuple[list[slice], Any]:
    """Contiguous runs of one dim that a key needs, and the key within these runs."""
    if isinstance(key, slice):
        chosen = range(*key.indices(size))
        if not chosen:
            return [], slice(None)
        return [slice(min(chosen), max(chosen) + 1)], slice(None, None, chosen.step)
    if isinstance(key, int | np.integer):
        at = int(key) % size
        return [slice(at, at + 1)], 0
    wanted, inside = np.unique(np.asarray(key) % size, return_inverse=True)
    parts = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
    runs = [slice(int(part[0]), int(part[-1]) + 1) for part in parts if part.size]
    return runs, inside
