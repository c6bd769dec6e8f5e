"""The jobs of a study, one sample on one model each, and how many of them are done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.study import fingerprint
from probe.study.progress import Progress, Tally

if TYPE_CHECKING:
    from probe.study.sample import Sample
    from probe.study.spec import Study
    from probe.study.store import Store

PAUSE = 20.0  # times as long as a count took, before the next one is due


@dataclass(frozen=True)
class Job:
    """One sample on one model.

    Attributes:
        id: names the job among claims.
        model: name of the model.
        sample: the sample.
        keys: of its cells, in the study's order.
    """

    id: str
    model: str
    sample: Sample
    keys: tuple[str, ...]


def jobs(study: Study, samples: Sequence[Sample], name: str, digest: str, code: str) -> list[Job]:
    """The samples on one model.

    Args:
        study: what is asked.
        samples: its samples.
        name: of the model.
        digest: hash of the model's weights.
        code: version of the code.
    """
    setting, cells = study.setting, study.cells()
    found = []
    for sample in samples:
        about = digest, sample.fingerprint, setting, code
        keys = tuple(cell.key(*about) for cell in cells)
        found.append(Job(fingerprint.of(*about, sample.id), name, sample, keys))
    return found


def names(study: Study) -> list[str]:
    """A name for each model of a study: its own, with its arguments where that is there twice."""
    return [study.model_name(one) for one in study.models]


class Counted:
    """Counts what is done, as far as the models' hashes are known.

    Args:
        study, samples: what is asked.
        store: where results are.
        code: version of the code.
        workers: how many are at work.
    """

    def __init__(
        self, study: Study, samples: Sequence[Sample], store: Store, code: str, workers: int
    ) -> None:
        self.study, self.samples, self.store, self.code = study, samples, store, code
        self._jobs: dict[tuple[str, str], list[Job]] = {}
        self._next = 0.0
        total = len(samples) * len(study.models)
        self._tally = Tally(self._count()[0], total, workers)

    @property
    def jobs(self) -> list[Job]:
        """Jobs on the models whose hashes are known."""
        found = []
        for name, digest in self.store.digests(names(self.study)).items():
            if (name, digest) not in self._jobs:
                known = jobs(self.study, self.samples, name, digest, self.code)
                self._jobs[name, digest] = known
            found += self._jobs[name, digest]
        return found

    def now(self) -> Progress:
        """The progress now."""
        began = time.monotonic()
        found = self._tally.at(*self._count())
        ended = time.monotonic()
        self._next = ended + PAUSE * (ended - began)
        return found

    def due(self) -> bool:
        """Counting again would take a small part of the time since the last count."""
        return time.monotonic() >= self._next

    def _count(self) -> tuple[int, int]:
        """(samples that are done on a model, cells with an error)."""
        results = self.store.refresh()
        done = failed = 0
        for job in self.jobs:
            there = [results[key] for key in job.keys if key in results]
            done += len(there) == len(job.keys)
            failed += sum(cell["error"] is not None for cell in there)
        return done, failed
