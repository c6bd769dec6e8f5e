"""`run_study`: everything a study asks for that is not there yet, by one worker or many."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError
from probe.study import fingerprint
from probe.study.claim import SILENT, Claims
from probe.study.jobs import Counted, names
from probe.study.order import Order, missing, name_of_worker, plain, record
from probe.study.outcome import Outcome
from probe.study.progress import Progress, Tell
from probe.study.store import VERSION, Store
from probe.study.worker import Worker

if TYPE_CHECKING:
    from probe.models.video_model import VideoModel
    from probe.study.pool import Pool
    from probe.study.sample import Sample
    from probe.study.spec import Study

DEATHS = 3  # workers that may die on one sample before it counts as failed
FEATURES = 20 * 2**30  # bytes of cached vision features


def run_study(
    study: Study,
    folder: str | Path,
    *,
    workers: int = 1,
    threads: int | None = None,
    ray: bool | str = False,
    retry: bool = False,
    features: bool | str | Path = True,
    features_bytes: int = FEATURES,
    progress: Tell | None = None,
    loaded: Mapping[str, VideoModel] | None = None,
    silent: float = SILENT,
) -> Progress:
    """Compute what is missing of a study.

    Any number of these may run on one folder at the same time, on one machine or on several that
    share it: samples are claimed. In a job array of SLURM the tasks begin at different samples.

    Args:
        study: what is asked.
        folder: of the results; made where it is not there.
        workers: 1 works in this process; more are processes of their own. A worker that dies is
            replaced; a sample that three died on is recorded as failed.
        threads: of torch in each worker; 1 by default where there are several.
        ray: workers on a Ray cluster: True for the one that RAY_ADDRESS names, or a new one on
            this machine; or its address. All its machines see the folder.
        retry: compute those cells again whose result is an error.
        features: keep vision features in this folder, so that the tower runs once a clip; True
            for one inside `folder`, False for not at all.
        features_bytes: how much of them; the ones not used for longest go.
        progress: called after each sample, or less often where counting takes long.
        loaded: models by name that are here already (with one worker in this process).
        silent: seconds without a sign of life after which a claim from another machine is stale.

    Returns:
        The progress at the end.

    Raises:
        ProbeError: samples that cannot be read, a model that cannot be loaded, a full disk. What
            goes wrong with single samples is recorded with them instead.
        KeyboardInterrupt: passed on; claims are given back, and what is written stays.
    """
    if workers < 1:
        raise ProbeError(f"workers={workers}; at least 1")
    if loaded and (workers > 1 or ray):
        raise ProbeError("loaded models stay in this process; use workers=1 without ray")
    folder = Path(folder).absolute()
    samples = study.load()
    store = Store(folder, light=True)
    store.describe(_manifest(study, samples))
    kept = folder / "features" if features is True else features
    order = Order(
        study=study.to_json(),
        base=str(Path(study.folder).absolute()),
        folder=str(folder),
        name=name_of_worker(),
        code=fingerprint.code(),
        retry=time.time() if retry else None,
        features=str(Path(kept).absolute()) if kept else None,
        features_bytes=features_bytes,
        threads=threads if workers == 1 and not ray else threads or 1,
        silent=silent,
    )
    counter = Counted(study, samples, store, order.code, workers)
    tell = progress or (lambda _: None)
    tell(counter.now())
    if workers == 1 and not ray:
        order = _placed(order, 0, 1)
        told = lambda: tell(counter.now()) if counter.due() else None  # noqa: E731
        Worker(order, study, samples, loaded or {}, told).work()
    else:
        _supervise(order, workers, _pool(ray, workers), counter, tell)
    last = counter.now()
    tell(last)
    return last


def _pool(ray: bool | str, workers: int) -> Pool:
    if ray:
        from probe.study.workers_ray import Rays

        return Rays(workers, ray if isinstance(ray, str) else None)
    from probe.study.pool import Processes

    return Processes()


def _supervise(order: Order, workers: int, pool: Pool, counter: Counted, tell: Tell) -> None:
    """Start workers, replace those that die, until one after the other finds nothing to do."""
    deaths: Counter[str] = Counter()
    running = set()
    said = -1
    try:
        for number in range(workers):
            one = _placed(order, number, workers)
            running.add(one.name)
            pool.start(one)
        while running:
            for end in pool.ended():
                running.discard(end.name)
                if end.error is not None:
                    raise ProbeError(end.error)
                if end.died:
                    job = _free(order, end.name)
                    deaths[job] += 1
                    if deaths[job] >= DEATHS and not job:
                        raise ProbeError(f"{DEATHS} workers died before they began; run one alone")
                    if deaths[job] >= DEATHS:
                        _give_up(order, counter, job)
                    one = _placed(order, len(deaths), workers)
                    running.add(one.name)
                    pool.start(one)
            if counter.due():
                now = counter.now()
                if now.done != said:
                    said = now.done
                    deaths.pop("", None)  # between samples, in a study that goes on
                    tell(now)
            time.sleep(0.2)
    finally:
        pool.stop()


def _free(order: Order, gone: str) -> str:
    """Give back what a dead worker had claimed; the job, or "" where it had none."""
    with Claims(Path(order.folder) / "claims", order.name) as claims:
        for claim in claims.every():
            if claim.worker == gone and claims.take(claim.job, gone):
                claims.release(claim.job)
                return claim.job
    return ""


def _give_up(order: Order, counter: Counted, job: str) -> None:
    """Record that a sample cannot be computed, as workers die of it."""
    found = next((one for one in counter.jobs if one.id == job), None)
    if found is None:
        return
    numbers = missing(order, found.keys, counter.store.refresh())
    cells, keys = counter.study.cells(), [found.keys[n] for n in numbers]
    failed = Outcome(error=f"{DEATHS} workers died while they computed this sample")
    with closing(counter.store.writer(order.name)) as writer:
        several = [cells[n] for n in numbers], keys, [failed] * len(keys)
        writer.append(record(order, found, *several, 0.0))


def _placed(order: Order, number: int, workers: int) -> Order:
    """The order with a name and a place to begin at, among those of a job array too."""
    task, tasks = _array()
    share = (task * workers + number % workers) / (tasks * workers)
    return replace(order, name=name_of_worker(number), share=share)


def _array() -> tuple[int, int]:
    """Which task of how many of a SLURM job array this is."""
    try:
        first = int(os.environ.get("SLURM_ARRAY_TASK_MIN", "0"))
        task = int(os.environ["SLURM_ARRAY_TASK_ID"]) - first
        tasks = int(os.environ["SLURM_ARRAY_TASK_COUNT"])
    except (KeyError, ValueError):
        return 0, 1
    return task % max(1, tasks), max(1, tasks)


def _manifest(study: Study, samples: list[Sample]) -> dict[str, Any]:
    return {
        "v": VERSION,
        "study": study.to_json(),
        "fingerprint": study.fingerprint,
        "code": fingerprint.code(),
        "setting": study.setting,
        "models": names(study),
        "samples": [
            {
                "id": one.id,
                "fingerprint": one.fingerprint,
                "cluster": one.cluster,
                "meta": {k: plain(v) for k, v in one.meta.items()},
            }
            for one in samples
        ],
        "cells": [
            {
                "label": cell.label,
                "role": cell.role,
                "of": cell.of,
                "seed": cell.seed,
                "spec": dict(cell.spec),
                "grid": dict(cell.grid),
            }
            for cell in study.cells()
        ],
    }
