"""One worker of a study: claims samples, computes what is missing, writes it down.

As a program (`python -m probe.study.worker`) it reads what to do as one line of JSON from its
input, and stops when its input closes: a worker does not outlive who started it.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from probe.errors import ProbeError
from probe.study import fingerprint
from probe.study.claim import BEAT, Claims
from probe.study.jobs import Job, jobs, names
from probe.study.order import Order, missing, record
from probe.study.outcome import outcomes
from probe.study.store import Store, Writer

if TYPE_CHECKING:
    from probe.models.video_model import VideoModel
    from probe.study.cell import Cell
    from probe.study.features import FeatureCache
    from probe.study.sample import Sample
    from probe.study.spec import Study

CHANGED = "the source of probe changed while the study ran; run it again"


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
        self.store = Store(self.order.folder, light=True)
        self.names = names(self.study)
        self.cells: tuple[Cell, ...] = self.study.cells()
        self._jobs: dict[str, list[Job]] = {}
        self._open: tuple[str, VideoModel] | None = None
        self._cache: FeatureCache | None = None
        self.store.refresh()

    def work(self) -> None:
        """Everything that is missing, until nothing is; waits for what others have claimed.

        Raises:
            ProbeError: a model that cannot be loaded, results that cannot be written.
        """
        folder = Path(self.order.folder) / "claims"
        beat = min(BEAT, self.order.silent / 4)
        claims = Claims(folder, self.order.name, beat=beat, silent=self.order.silent)
        wait = 0.05
        written = closing(self.store.writer(self.order.name))
        with self._features(), claims, written as writer:
            while True:
                claimed = others = False
                for job in self._every():
                    if not self._missing(job):
                        continue
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
        return missing(self.order, job.keys, self.store.results)

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
            one = self.study.models[self.names.index(name)]
            model = self.loaded.get(name) or self.study.load_model(one)
            if self._cache is not None and model.feature_cache is None:
                model.feature_cache = self._cache
            self._open = name, model
        return self._open[1]

    @contextmanager
    def _features(self) -> Iterator[None]:
        """Models keep vision features while the study runs; those of the caller's not longer."""
        if self.order.features:
            from probe.study.features import FeatureCache

            self._cache = FeatureCache(self.order.features, self.order.features_bytes)
        try:
            yield
        finally:
            for model in self.loaded.values():
                if self._cache is not None and model.feature_cache is self._cache:
                    model.feature_cache = None


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
    # Ignored where the study was started in the background; the pool ends its workers by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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


if __name__ == "__main__":
    sys.exit(main())
