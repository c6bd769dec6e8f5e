"""What a worker is told, and the line of results that it writes."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from probe.study.claim import SILENT
from probe.study.store_files import VERSION

if TYPE_CHECKING:
    from probe.study.cell import Cell
    from probe.study.jobs import Job
    from probe.study.outcome import Outcome


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
        retry: cells whose result is an error of before this time (seconds since 1970) are computed
            again; None for none.
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
    retry: float | None = None
    features: str | None = None
    features_bytes: int = 0
    threads: int | None = None
    silent: float = SILENT

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def missing(order: Order, keys: Sequence[str], results: Mapping[str, Any]) -> list[int]:
    """Numbers of the cells that have no result, or an error of an earlier run that is to be
    computed again.

    Args:
        order: what the worker is told.
        keys: of the cells.
        results: by key, as `Store.refresh` gives them.
    """

    def again(result: Mapping[str, Any]) -> bool:
        return order.retry is not None and bool(result["error"]) and result["time"] < order.retry

    return [n for n, key in enumerate(keys) if key not in results or again(results[key])]


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
        "meta": {name: plain(value) for name, value in sample.meta.items()},
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


def plain(value: Any) -> Any:
    """What a column of a sample holds, as JSON has it."""
    return value if isinstance(value, str | int | float | bool | None) else str(value)
