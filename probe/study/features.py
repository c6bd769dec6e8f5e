"""A folder of vision features, one safetensors file a clip, bounded in size."""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from probe.engine.hashing import Hashes
from probe.engine.hashing import tensors as hash_of
from probe.errors import ProbeError

if TYPE_CHECKING:
    from torch import Tensor

ENDING = ".safetensors"
ABANDONED = 3600.0  # seconds after which a half-written file has no writer any more


class FeatureCache:
    """Vision features by key, which several processes may use at the same time.

    `model.feature_cache = FeatureCache("features")` turns it on for every run, sweep and
    generation of a model. A file is written under another name and moved into place, so that
    nobody reads half of one; one that is damaged all the same (its checksum is wrong, or it does
    not open) counts as not there and is removed.

    Weights that change are noticed, but not where they are written through `.data` in place: give
    the model a new cache then.

    Args:
        folder: made where it is not there.
        size: bytes on the disk at most; what was not used for longest goes first.

    Attributes:
        hits, misses: how often features were there, and were not.
        hashes: of pixels and weights, which keys are made of.
    """

    def __init__(self, folder: str | Path, size: int = 20 * 2**30) -> None:
        self.folder, self.size = Path(folder), size
        self.hits = self.misses = 0
        self.hashes = Hashes()
        self._last: tuple[str, dict[str, Tensor]] | None = None
        self._written = size  # so that what an earlier run left is counted with the first file
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ProbeError(f"{folder}: cannot be written ({error.strerror or error})") from None

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Tensors on the CPU, by name; None where they are not there."""
        if self._last is not None and self._last[0] == key:
            self.hits += 1
            return self._last[1]
        found = self._read(self._path(key))
        self.hits += found is not None
        self.misses += found is None
        self._last = None if found is None else (key, found)
        return found

    def put(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keep tensors. A disk that cannot take them is no error: they are computed again."""
        from safetensors.torch import save

        self._last = key, tensors
        path = self._path(key)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        content = save(tensors, {"sum": hash_of(sorted(tensors.items()))})
        if len(content) > self.size:
            return
        try:
            part.write_bytes(content)
            part.replace(path)
            self._written += len(content)
            if self._written > self.size // 20:
                self._trim()
        except OSError:
            return
        finally:
            part.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{ENDING}"

    def _read(self, path: Path) -> dict[str, Tensor] | None:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
                right = (opened.metadata() or {}).get("sum") == hash_of(sorted(tensors.items()))
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError):
            tensors, right = {}, False
        with suppress(OSError):  # a folder that one may only read, or another process removes it
            os.utime(path) if right else path.unlink(missing_ok=True)
        return tensors if right else None

    def _trim(self) -> None:
        """Remove what was not used for longest, down to nine tenths of the size."""
        self._written = 0
        files = []
        for entry in os.scandir(self.folder):
            try:
                about = entry.stat()
            except FileNotFoundError:  # another process trims too
                continue
            if entry.name.endswith(ENDING):
                files.append((about.st_mtime, about.st_size, entry.path))
            elif entry.name.startswith(".") and about.st_mtime < time.time() - ABANDONED:
                Path(entry.path).unlink(missing_ok=True)
        total = sum(size for _, size, _ in files)
        if total <= self.size:
            return
        for _, size, path in sorted(files):
            Path(path).unlink(missing_ok=True)
            total -= size
            if total <= 0.9 * self.size:
                return
