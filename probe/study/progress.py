"""How far a run of a study is: its rate, the time that remains, its failures."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """A run of a study at one moment.

    Attributes:
        done: samples that are finished, on each model; those found finished included.
        total: samples times models.
        failed: cells with an error.
        seconds: since the run began.
        per_second: samples a second in this run; 0 before the first.
        remaining: seconds left at this rate; None before the first.
        workers: how many are at work.
    """

    done: int
    total: int
    failed: int
    seconds: float
    per_second: float
    remaining: float | None
    workers: int = 1

    def __str__(self) -> str:
        left = "" if self.remaining is None else f", {duration(self.remaining)} left"
        rate = f"{self.per_second:.2f}/s" if self.per_second else "starting"
        return f"{self.done} of {self.total} samples, {rate}{left}, {self.failed} failures"


Tell = Callable[[Progress], object]


class Tally:
    """Makes a `Progress` of counts.

    Args:
        done: finished before this run began.
        total: samples times models.
        workers: how many are at work.
    """

    def __init__(self, done: int, total: int, workers: int = 1) -> None:
        self.before, self.total, self.workers = done, total, workers
        self._began = time.monotonic()

    def at(self, done: int, failed: int) -> Progress:
        """The progress now."""
        seconds = time.monotonic() - self._began
        new = max(0, done - self.before)
        rate = new / seconds if seconds > 0 else 0.0
        left = (self.total - done) / rate if rate else None
        return Progress(done, self.total, failed, seconds, rate, left, self.workers)


def duration(seconds: float) -> str:
    """`75` -> `1 min 15 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def shown() -> Iterator[Tell]:
    """A callback that draws a bar in a terminal, and elsewhere writes a line now and then."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Bar(*columns, TextColumn("{task.fields[about]}"), console=Console(stderr=True)) as bar:
        row = bar.add_task("samples", total=None, about="")

        def tell(now: Progress) -> None:
            about = str(now).partition("samples, ")[2]
            bar.update(row, completed=now.done, total=now.total, about=about)

        yield tell


def _lines(every: float = 60.0) -> Tell:
    last = [0.0]

    def tell(now: Progress) -> None:
        if now.done == now.total or now.seconds - last[0] >= every:
            last[0] = now.seconds
            print(now, file=sys.stderr, flush=True)

    return tell
