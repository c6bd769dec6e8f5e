"""The jobs of a study, one sample on one model each, and how many of them are done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probe.study import fingerprint
from probe.study.progress import Progress, Tally

if TYPE_CHECKING:
    from probe.study.sample import Sample
    from probe.study.spec import Study
    from probe.study.store import Store


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
    plain = [str(one["model"]) for one in study.models]
    return [
        name if plain.count(name) == 1 else f"{name} {json.dumps(arguments(one), sort_keys=True)}"
        for name, one in zip(plain, study.models, strict=True)
    ]


def arguments(model: Mapping[str, Any]) -> dict[str, Any]:
    """What goes to `probe.load` besides the name."""
    return {name: value for name, value in model.items() if name != "model"}


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
        total = len(samples) * len(study.models)
        self._tally = Tally(self._count()[0], total, workers)

    @property
    def jobs(self) -> list[Job]:
        """Jobs on the models whose hashes are known."""
        found = []
        for name, digest in self.store.models.items():
            if (name, digest) not in self._jobs:
                known = jobs(self.study, self.samples, name, digest, self.code)
                self._jobs[name, digest] = known
            found += self._jobs[name, digest]
        return found

    def now(self) -> Progress:
        """The progress now."""
        return self._tally.at(*self._count())

    def _count(self) -> tuple[int, int]:
        """(samples that are done on a model, cells with an error)."""
        results = self.store.refresh()
        done = failed = 0
        for job in self.jobs:
            there = [results[key] for key in job.keys if key in results]
            done += len(there) == len(job.keys)
            failed += sum(cell["error"] is not None for cell in there)
        return done, failed
