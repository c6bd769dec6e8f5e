"""Claims: one holder each, taken over from the dead, and only from them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from probe.study.claim import Claims, born, host

RACE = """
import sys, time
from pathlib import Path
from probe.study.claim import Claims
with Claims(Path(sys.argv[1]), sys.argv[2]) as claims:
    while not (Path(sys.argv[1]) / "go").exists():
        time.sleep(0.001)
    won = [job for job in (f"j{n}" for n in range(200)) if claims.take(job)]
    print(" ".join(won), flush=True)
    sys.stdin.read()
"""


def left_by(
    folder: Path, job: str, *, machine: str, pid: int, age: float, start: str = "1"
) -> Path:
    """A claim that somebody else made."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{job}.0"
    told = {"host": machine, "pid": pid, "born": start, "worker": "other", "time": 0}
    path.write_text(json.dumps(told))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_job_has_one_holder(tmp_path: Path) -> None:
    with Claims(tmp_path, "one") as one, Claims(tmp_path, "two") as two:
        assert one.take("a") and not two.take("a") and two.take("b")
        assert not one.take("a")  # not twice either
        assert {claim.job: claim.worker for claim in two.every()} == {"a": "one", "b": "two"}
        two.release("a")  # what one does not hold
        assert not two.take("a")
        one.release("a")
        assert two.take("a")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("stale", [False, True])
def test_of_several_processes_one_wins_each_job(tmp_path: Path, stale: bool) -> None:
    if stale:
        gone = ended_process()
        for number in range(200):
            left_by(tmp_path, f"j{number}", machine=host(), pid=gone, age=0)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path), f"w{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    time.sleep(1.0)
    (tmp_path / "go").touch()
    won = Counter(job for racer in racers for job in racer.stdout.readline().split())  # type: ignore[union-attr]
    for racer in racers:
        racer.communicate()
    assert len(won) == 200 and set(won.values()) == {1}
    assert os.listdir(tmp_path) == ["go"]


def test_a_dead_process_of_this_machine_is_replaced_at_once(tmp_path: Path) -> None:
    left_by(tmp_path, "a", machine=host(), pid=ended_process(), age=0)
    left_by(tmp_path, "b", machine=host(), pid=os.getpid(), age=1e6, start=born(os.getpid()))
    left_by(tmp_path, "c", machine=host(), pid=os.getpid(), age=0, start="17")  # number used again
    with Claims(tmp_path, "one", silent=1000) as claims:
        assert [claims.take(job) for job in "abc"] == [True, False, True]


def test_another_machine_is_replaced_when_it_is_silent(tmp_path: Path) -> None:
    left_by(tmp_path, "a", machine="elsewhere", pid=1, age=50)
    left_by(tmp_path, "b", machine="elsewhere", pid=1, age=200)
    with Claims(tmp_path, "one", silent=120) as claims:
        assert [claims.take(job) for job in "ab"] == [False, True]
        assert claims.take("a", gone="other")  # whoever started that worker knows that it is gone


def test_a_claim_that_was_never_written_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.0"
    path.touch()
    with Claims(tmp_path, "one") as claims:
        assert not claims.take("a")  # its maker may be about to write it
        os.utime(path, (time.time() - 5, time.time() - 5))
        assert claims.take("a")


def test_the_one_who_took_over_holds_it(tmp_path: Path) -> None:
    left_by(tmp_path, "a", machine="elsewhere", pid=1, age=1e4)
    with Claims(tmp_path, "one") as one, Claims(tmp_path, "two") as two:
        assert one.take("a") and not two.take("a")
        assert max(claim.number for claim in two.every("a")) == 1
        one.release("a")
        assert not two.every()


def test_a_held_claim_gives_signs_of_life(tmp_path: Path) -> None:
    with Claims(tmp_path, "one", beat=0.02) as claims:
        assert claims.take("a")
        path = tmp_path / "a.0"
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 11


def test_born(tmp_path: Path) -> None:
    assert born(os.getpid()) == born(os.getpid()) != ""
    assert born(ended_process()) == "" == born(0)
    unreaped = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, unreaped.pid, os.WEXITED | os.WNOWAIT)
    assert born(unreaped.pid) == ""  # dead, though its parent has not asked yet
    unreaped.wait()
