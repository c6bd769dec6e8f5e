"""One worker of a study: claims samples, computes what is missing, writes it down.

As a program (`python -m probe.study.worker`) it reads what to do as one line of JSON from its
input, and stops when its input closes: a worker does not outlive who started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError
from probe.study import fingerprint
from probe.study.claim import BEAT, SILENT, Claims
from probe.study.jobs import Job, arguments, jobs, names
from probe.study.outcome import Outcome, outcomes
from probe.study.store import VERSION, Store, Writer

if TYPE_CHECKING:
    from probe.models.video_model import VideoModel
    from probe.study.cell import Cell
    from probe.study.sample import Sample
    from probe.study.spec import Study

CHANGED = "the source of probe changed while the study ran; run it again"


@dataclass(frozen=True)
class Order:
    """What a worker is told.

    Attributes:
        study: the spec as plain data, and the folder that its paths start from.
        base: that folder.
        folder: of the store.
        name: of this worker, unique.
        share: where in the samples it begins, from 0 to 1; workers that begin at different places
            meet late.
        code: version of the code that results are for.
        retry: cells whose result is an error are computed again.
        features: folder of the cache of vision features; None for none.
        features_bytes: its size at most.
        threads: of torch; None for torch's own choice.
        silent: seconds after which a claim from another machine is stale.
    """

    study: Mapping[str, Any]
    base: str
    folder: str
    name: str
    share: float = 0.0
    code: str = ""
    retry: bool = False
    features: str | None = None
    features_bytes: int = 0
    threads: int | None = None
    silent: float = SILENT

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Worker:
    """See `work`.

    Attributes:
        order, study, samples: what is to be done.
        loaded: models by name that need not be loaded.
        told: called after each sample.
    """

    order: Order
    study: Study
    samples: Sequence[Sample]
    loaded: Mapping[str, VideoModel] = field(default_factory=dict)
    told: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        self.store = Store(self.order.folder)
        self.names = names(self.study)
        self.cells: tuple[Cell, ...] = self.study.cells()
        self._jobs: dict[str, list[Job]] = {}
        self._open: tuple[str, VideoModel] | None = None
        results = self.store.refresh() if self.order.retry else {}
        self._failed = {key: _identity(cell) for key, cell in results.items() if cell["error"]}

    def work(self) -> None:
        """Everything that is missing, until nothing is; waits for what others have claimed.

        Raises:
            ProbeError: a model that cannot be loaded, results that cannot be written.
        """
        folder = Path(self.order.folder) / "claims"
        beat = min(BEAT, self.order.silent / 4)
        claims = Claims(folder, self.order.name, beat=beat, silent=self.order.silent)
        wait = 0.05
        with claims, closing(self.store.writer(self.order.name)) as writer:
            while True:
                claimed = others = False
                for job in self._every():
                    self.store.refresh()
                    if not self._missing(job):
                        continue
                    if claims.take(job.id):
                        claimed = True
                        self._do(job, claims, writer)
                    else:
                        others = True
                if not claimed and not others:
                    return
                wait = 0.05 if claimed else min(2.0, wait * 1.5)
                time.sleep(wait if others else 0)

    def _every(self) -> Iterator[Job]:
        """Jobs model after model, those of a model from this worker's place on."""
        for name in self.names:
            jobs = self.jobs(name)
            first = int(self.order.share * len(jobs))
            yield from (*jobs[first:], *jobs[:first])

    def jobs(self, name: str) -> list[Job]:
        """The samples on one model, which is loaded for its hash where that was not done yet."""
        if name not in self._jobs:
            digest = fingerprint.model(self._model(name))
            self.store.describe_model(name, digest)
            self._jobs[name] = jobs(self.study, self.samples, name, digest, self.order.code)
        return self._jobs[name]

    def _missing(self, job: Job) -> list[int]:
        """Numbers of the cells that have no result, or one that is to be retried."""
        results = self.store.results
        return [
            number
            for number, key in enumerate(job.keys)
            if key not in results
            or (key in self._failed and _identity(results[key]) == self._failed[key])
        ]

    def _do(self, job: Job, claims: Claims, writer: Writer) -> None:
        try:
            self.store.refresh()  # another one may have finished it before we claimed it
            numbers = self._missing(job)
            if numbers:
                cells = [self.cells[number] for number in numbers]
                started = time.perf_counter()
                found = outcomes(self.study, self._model(job.model), job.sample, cells)
                seconds = time.perf_counter() - started
                keys = [job.keys[number] for number in numbers]
                writer.append(record(self.order, job, cells, keys, found, seconds))
        finally:
            claims.release(job.id)
        self.told()

    def _model(self, name: str) -> VideoModel:
        """A model of the study; one at a time is held."""
        if self._open is None or self._open[0] != name:
            self._open = None
            model = self.loaded.get(name) or opened(self.study, name)
            if self.order.features and model.feature_cache is None:
                from probe.study.features import FeatureCache

                bound = self.order.features_bytes
                model.feature_cache = FeatureCache(self.order.features, bound)
            self._open = name, model
        return self._open[1]


def opened(study: Study, name: str) -> VideoModel:
    """Load a model of a study.

    Raises:
        ProbeError: it cannot be loaded.
    """
    import probe

    one = study.models[names(study).index(name)]
    return probe.load(str(one["model"]), **arguments(one))


def record(
    order: Order,
    job: Job,
    cells: Sequence[Cell],
    keys: Sequence[str],
    outcomes: Sequence[Outcome],
    seconds: float,
) -> dict[str, Any]:
    """A line of results."""
    sample = job.sample
    return {
        "v": VERSION,
        "study": str(order.study["name"]),
        "code": order.code,
        "model": job.model,
        "sample": sample.id,
        "video": sample.cluster,
        "meta": {name: _text(value) for name, value in sample.meta.items()},
        "worker": order.name,
        "time": time.time(),
        "seconds": round(seconds, 4),
        "cells": [
            {"key": key, "label": cell.label, "role": cell.role, "of": cell.of, "seed": cell.seed}
            | outcome.to_json()
            for cell, key, outcome in zip(cells, keys, outcomes, strict=True)
        ],
    }


def name_of_worker(number: int = 0) -> str:
    """A new name for a worker; it begins with the machine and the process."""
    import socket

    host = "".join(c if c.isalnum() else "-" for c in socket.gethostname())
    return f"{host}-{os.getpid()}-{number}-{uuid.uuid4().hex[:6]}"


def work(order: Order) -> None:
    """Do as told, in a process of its own.

    Raises:
        ProbeError: the code is not the one that was asked for, or as `Worker.work`.
    """
    from probe.study.spec import Study

    if order.threads is not None:
        import torch

        torch.set_num_threads(order.threads)
    if fingerprint.code() != order.code:
        raise ProbeError(CHANGED)
    study = Study.from_mapping(order.study, order.base)
    Worker(order, study, study.load()).work()


def main() -> int:
    """The program: 0 when everything is done, 2 for an error of the user's, 3 when interrupted."""
    told = json.loads(sys.stdin.readline())
    sys.path[:] = [*sys.path, *(path for path in told["path"] if path not in sys.path)]
    threading.Thread(target=_stop_with_input, daemon=True).start()
    try:
        work(Order(**told["order"]))
    except ProbeError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 3
    return 0


def _stop_with_input() -> None:
    import _thread

    sys.stdin.read()
    _thread.interrupt_main()


def _identity(cell: Mapping[str, Any]) -> tuple:
    return cell["worker"], cell["time"]


def _text(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


if __name__ == "__main__":
    sys.exit(main())
