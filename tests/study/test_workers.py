"""Workers in processes of their own, here and on Ray: one that dies is replaced."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from probe import ProbeError
from probe.models.video_model import VideoModel
from probe.study.claim import Claims, host
from probe.study.pool import Processes
from probe.study.progress import Progress
from probe.study.runner import run_study
from probe.study.store import Store
from tests.study import small

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
OWN = ["tests.study.own_killer:Length()"]


@pytest.fixture(scope="module")
def checkpoint(tiny: VideoModel, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model in a folder, for other processes to load."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.hf.save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spec")
    small.spec(folder)
    return folder


@pytest.fixture(scope="module")
def whole(checkpoint: str, spec: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The table of an uninterrupted run by one worker."""
    folder = tmp_path_factory.mktemp("whole")
    run_study(small.study(spec, models=[checkpoint], diagnoses=OWN), folder)
    return small.table(folder)


class Killer(threading.Thread):
    """Kills the first worker that has written something and holds a claim."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.killed = folder, 0
        self.start()

    def run(self) -> None:
        deadline = time.monotonic() + 120
        while not self.killed and time.monotonic() < deadline:
            for claim in Claims(self.folder / "claims", "reader").every():
                written = self.folder.glob(f"results-{claim.worker}-*")
                done = any(path.stat().st_size for path in written)
                if claim.host == host() and claim.pid != os.getpid() and done:
                    os.kill(claim.pid, signal.SIGKILL)
                    self.killed = claim.pid
                    return
            time.sleep(0.002)


@pytest.mark.parametrize("ray", [False, pytest.param(True, marks=needs_ray)])
def test_a_worker_that_is_killed_is_replaced(
    checkpoint: str,
    spec: Path,
    whole: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ray: bool,
) -> None:
    pool = import_module("probe.study.workers_ray").Rays if ray else Processes
    started, start = [], pool.start
    monkeypatch.setattr(pool, "start", lambda *a: started.append(1) or start(*a))
    killer = Killer(tmp_path)
    study = small.study(spec, models=[checkpoint], diagnoses=OWN)
    last = run_study(study, tmp_path, workers=2, ray=ray)
    killer.join()
    assert killer.killed and len(started) == 3
    assert (last.done, last.failed, last.workers) == (small.SAMPLES, 0, 2)
    pd.testing.assert_frame_equal(small.table(tmp_path), whole)
    assert not os.listdir(tmp_path / "claims")
    workers = Counter(record["worker"] for record in Store(tmp_path).records())
    assert workers.total() == small.SAMPLES and len(workers) >= 2


def test_a_sample_that_kills_every_worker_is_given_up(
    checkpoint: str, spec: Path, whole: pd.DataFrame, tmp_path: Path
) -> None:
    killing = ['tests.study.own_killer:Length(kills="q5")']
    study = small.study(spec, models=[checkpoint], diagnoses=killing)
    last = run_study(study, tmp_path, workers=2)
    assert (last.done, last.failed) == (small.SAMPLES, 5)
    found = small.table(tmp_path).set_index("sample")
    assert (found.error["q5"] == "3 workers died while they computed this sample").all()
    others = found.error.drop("q5")
    assert others.isna().all() and len(others) == 5 * (small.SAMPLES - 1)


def test_what_stops_a_worker_stops_the_study(spec: Path, tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="no/such/model: not a folder"):
        run_study(small.study(spec, models=["no/such/model"]), tmp_path, workers=2)


def test_an_interrupt_stops_all_workers(
    checkpoint: str, spec: Path, whole: pd.DataFrame, tmp_path: Path
) -> None:
    seen: list[int] = []

    def interrupt(now: Progress) -> None:
        seen.extend(claim.pid for claim in Claims(tmp_path / "claims", "reader").every())
        if now.done:
            raise KeyboardInterrupt

    study = small.study(spec, models=[checkpoint], diagnoses=OWN)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path, workers=2, progress=interrupt)
    assert not os.listdir(tmp_path / "claims")
    assert not any(Path(f"/proc/{pid}").exists() for pid in seen)
    run_study(study, tmp_path)
    pd.testing.assert_frame_equal(small.table(tmp_path), whole)


def test_the_tasks_of_a_job_array_begin_at_different_samples(
    tiny: VideoModel, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: list[Any] = []
    for task in (4, 5):
        for name, value in (("ID", task), ("MIN", 4), ("COUNT", 2)):
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        folder = tmp_path / str(task)
        run_study(small.study(spec), folder, loaded={"tiny": tiny}, features=False)
        first.append(next(Store(folder).records())["sample"])
    assert first == ["q0", "q4"]
