"""Runs that are killed: what was finished stays, and the end is that of an uninterrupted run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from probe.study.store import Store
from tests.study import small
from tests.study.zygote import Zygote


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    one = Zygote()
    one.ready()
    yield one
    one.close()


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spec")
    small.spec(folder)
    return folder


@pytest.fixture(scope="module")
def finished(
    zygote: Zygote, spec: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, float]:
    """The folder of an uninterrupted run, and how long it took."""
    folder = tmp_path_factory.mktemp("whole")
    started = time.perf_counter()
    assert zygote.wait(zygote.run(folder, spec)) == 0
    return folder, time.perf_counter() - started


@pytest.fixture(scope="module")
def whole(finished: tuple[Path, float]) -> pd.DataFrame:
    """Its table."""
    table = small.table(finished[0])
    assert len(table) == small.SAMPLES * 4 and table.error.isna().all()
    return table


def killed(zygote: Zygote, folder: Path, spec: Path, after: float) -> None:
    pid = zygote.run(folder, spec)
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    assert zygote.wait(pid) in (-signal.SIGKILL, 0)


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.full)])
def test_killed_at_random_moments(
    zygote: Zygote,
    spec: Path,
    finished: tuple[Path, float],
    whole: pd.DataFrame,
    tmp_path: Path,
    kills: int,
) -> None:
    moments = random.Random(kills)
    before = 0
    for _ in range(kills):
        killed(zygote, tmp_path, spec, moments.uniform(0, 0.7) * finished[1])
        there = len(small.lines(tmp_path))
        assert there >= before  # nothing that was finished is lost
        before = there
    assert zygote.wait(zygote.run(tmp_path, spec)) == 0
    pd.testing.assert_frame_equal(small.table(tmp_path), whole)
    found = Counter(key for record in Store(tmp_path).records() for key in keys(record))
    assert set(found.values()) == {1}  # and nothing finished is computed again
    assert not os.listdir(tmp_path / "claims")


def keys(record: dict) -> list[str]:
    return [cell["key"] for cell in record["cells"]]


@pytest.mark.parametrize("damage", ["torn", "changed", "no line"])
def test_a_damaged_last_record_is_computed_again(
    zygote: Zygote,
    spec: Path,
    finished: tuple[Path, float],
    whole: pd.DataFrame,
    tmp_path: Path,
    damage: str,
) -> None:
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.glob("results-*.jsonl")
    content = path.read_bytes()
    last = content[:-1].rindex(b"\n") + 1
    if damage == "torn":
        path.write_bytes(content[: (last + len(content)) // 2])
    elif damage == "changed":  # still JSON, but another number
        where = content.index(b'"margin": ', last) + len(b'"margin": -')
        digit = b"1" if content[where : where + 1] != b"1" else b"2"
        path.write_bytes(content[:where] + digit + content[where + 1 :])
    else:
        path.write_bytes(content[:-1])
    assert len(small.table(tmp_path)) == len(whole) - 4
    assert Store(tmp_path).status()["damaged_lines"] == 1
    assert zygote.wait(zygote.run(tmp_path, spec)) == 0
    pd.testing.assert_frame_equal(small.table(tmp_path), whole)
    assert len(list(tmp_path.glob("results-*.jsonl"))) == 2  # nobody writes behind damage


def test_two_at_once_share_the_work(
    zygote: Zygote, spec: Path, whole: pd.DataFrame, tmp_path: Path
) -> None:
    pids = [zygote.run(tmp_path, spec) for _ in range(2)]
    assert [zygote.wait(pid) for pid in pids] == [0, 0]
    pd.testing.assert_frame_equal(small.table(tmp_path), whole)
    workers = Counter(record["worker"] for record in Store(tmp_path).records())
    assert workers.total() == small.SAMPLES and len(workers) == 2


def test_one_of_two_is_killed_and_the_other_takes_over(
    zygote: Zygote, spec: Path, whole: pd.DataFrame, tmp_path: Path
) -> None:
    first, second = (zygote.run(tmp_path, spec) for _ in range(2))
    deadline = time.monotonic() + 30
    while not any((tmp_path / "claims").glob("*.0")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(first, signal.SIGKILL)
    assert zygote.wait(second) == 0
    zygote.wait(first)
    pd.testing.assert_frame_equal(small.table(tmp_path), whole)
    assert not os.listdir(tmp_path / "claims")


def test_an_interrupt_leaves_no_claim(
    zygote: Zygote, spec: Path, whole: pd.DataFrame, tmp_path: Path
) -> None:
    pid = zygote.run(tmp_path, spec)
    deadline = time.monotonic() + 30
    while not small.lines(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(pid, signal.SIGINT)
    assert zygote.wait(pid) == 1
    assert not os.listdir(tmp_path / "claims")
    assert Store(tmp_path).status()["damaged_lines"] == 0
    assert zygote.wait(zygote.run(tmp_path, spec)) == 0
    pd.testing.assert_frame_equal(small.table(tmp_path), whole)
