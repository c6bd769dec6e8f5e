"""Claims: who works on what, by files that the file system lets only one process create.

A claim on job J is the file `J.n`; the holder is who made the highest n. A free job is claimed as
`J.0`, a stale claim `J.n` is taken over as `J.n+1`: both are exclusive creates, and nobody else's
file is moved or changed, so that of several who find the same stale claim one wins. When the job
is done its files go, the holder's last.

Works on file systems that several machines share, where exclusive creates are atomic (NFS 3 and
later, Lustre, GPFS, BeeGFS).
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

BEAT = 10.0  # seconds between two signs of life
UNKNOWN = "unknown"
SILENT = 120.0  # seconds without one after which a claim from another machine is stale


@dataclass(frozen=True)
class Claim:
    """A claim as it was found.

    Attributes:
        job: what is claimed.
        number: how often it was taken over.
        host, pid, born: of the process that holds it; `born` tells processes apart that had the
            same number one after the other.
        worker: name of the holder.
        age: seconds since its last sign of life, by the clock of the file system.
        stale: the holder is gone.
    """

    job: str
    number: int
    host: str
    pid: int
    born: str
    worker: str
    age: float
    stale: bool


class Claims:
    """The claims in a folder, as one worker sees and makes them.

    Args:
        folder: made where it is not there.
        worker: name of this worker.
        beat: seconds between two signs of life of what is held.
        silent: seconds after which a claim from another machine is stale. Those of this machine
            are stale as soon as their process is gone.
    """

    def __init__(
        self, folder: Path, worker: str, *, beat: float = BEAT, silent: float = SILENT
    ) -> None:
        self.folder, self.worker, self.beat, self.silent = folder, worker, beat, silent
        self._held: dict[str, Path] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Claims:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stop.clear()
        self._thread = threading.Thread(target=self._live, daemon=True, name="claims")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        for job in list(self._held):
            self.release(job)

    def take(self, job: str, gone: str = "") -> bool:
        """Claim a job, or take it over from one who is gone; False where another one has it.

        Args:
            job: its name; no path separators.
            gone: name of a worker that is known to be gone.
        """
        found = [claim for claim in self.every(job) if claim.job == job]
        last = max(found, key=lambda claim: claim.number, default=None)
        if last is not None and not (last.stale or (gone and last.worker == gone)):
            return False
        path = self.folder / f"{job}.{0 if last is None else last.number + 1}"
        mine = {"host": host(), "pid": os.getpid(), "born": born(os.getpid())}
        text = json.dumps(mine | {"worker": self.worker, "time": time.time()})
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as opened:
            opened.write(text)
        with self._lock:
            self._held[job] = path
        return True

    def release(self, job: str) -> None:
        """Give a job back, done or not."""
        with self._lock:
            own = self._held.pop(job, None)
        if own is None:
            return
        for number in range(int(own.suffix[1:])):
            (self.folder / f"{job}.{number}").unlink(missing_ok=True)
        own.unlink(missing_ok=True)

    def every(self, job: str = "") -> list[Claim]:
        """All claims there are, those that were taken over among them; or those on one job."""
        found = []
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return []
        for name in names:
            stem, _, number = name.rpartition(".")
            if stem and number.isdigit() and job in ("", stem):
                claim = self._read(self.folder / name, stem, int(number))
                found += [] if claim is None else [claim]
        return found

    def _read(self, path: Path, job: str, number: int) -> Claim | None:
        try:
            text, beaten = path.read_text(), path.stat().st_mtime
        except FileNotFoundError:
            return None
        try:
            data: dict[str, Any] = json.loads(text)
            holder = str(data["host"]), int(data["pid"]), str(data["born"])
        except (ValueError, KeyError, TypeError):  # its maker was killed, or is about to write it
            data, holder = {}, ("", 0, "")
        if holder[0] == host():
            age = max(0.0, time.time() - beaten)
            alive = born(holder[1])
            stale = age > self.silent if alive == UNKNOWN else alive != holder[2]
        else:
            age = max(0.0, self._now() - beaten)
            stale = age > (self.silent if holder[0] else min(self.silent, 2.0))
        return Claim(job, number, *holder, str(data.get("worker", "")), age, stale)

    def _now(self) -> float:
        """The file system's time, which may differ from this machine's."""
        clock = self.folder / f"clock-{self.worker}"
        try:
            clock.touch()
            now = clock.stat().st_mtime
            clock.unlink(missing_ok=True)
        except OSError:  # a folder that one may only read
            return time.time()
        return now

    def _live(self) -> None:
        while not self._stop.wait(self.beat):
            with self._lock:
                held = list(self._held.values())
            for path in held:
                try:
                    os.utime(path)
                except OSError:  # given back in between, or the file system is away for a while
                    continue


@cache
def host() -> str:
    """This machine, and which numbering of its processes we are in (containers have their own)."""
    try:
        numbering = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbering = ""
    return f"{socket.gethostname()} {numbering}".strip()


def born(pid: int) -> str:
    """When a process of this machine began; "" where there is none, "alive" off Linux, where that
    cannot be read, and `UNKNOWN` on Windows, where a process cannot be asked without harm.
    """
    if pid <= 0:
        return ""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        text = ""
    if text:  # the name, in brackets, may hold spaces; the state follows it
        fields = text.rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    if Path("/proc/self/stat").exists():
        return ""
    if os.name == "nt":  # signal 0 would be Ctrl-C
        return UNKNOWN
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"
