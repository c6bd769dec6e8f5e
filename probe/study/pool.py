"""Worker processes of this machine, and what a pool of workers does wherever they run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from probe.study.order import Order


@dataclass(frozen=True)
class End:
    """How a worker ended.

    Attributes:
        name: of the worker.
        died: it was killed, or its machine went away; another one takes its place.
        error: what it could not go on for; None where everything is done.
    """

    name: str
    died: bool
    error: str | None = None


class Pool(Protocol):
    """Workers, somewhere."""

    def start(self, order: Order) -> None: ...

    def ended(self) -> list[End]: ...

    def stop(self) -> None: ...


class Processes:
    """Workers as processes of this machine; where there are several GPUs, spread over them."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[subprocess.Popen, Any]] = {}
        self._started = 0
        self._devices = _devices()

    def start(self, order: Order) -> None:
        """Start one more."""
        settings = dict(os.environ)
        settings["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        if order.threads is not None:
            settings["OMP_NUM_THREADS"] = str(order.threads)
        if len(self._devices) > 1:
            device = self._devices[self._started % len(self._devices)]
            settings["CUDA_VISIBLE_DEVICES"] = device
        said = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process ends
        process = subprocess.Popen(
            [sys.executable, "-m", "probe.study.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=settings,
            start_new_session=True,  # an interrupt goes to who started it, who stops them all
        )
        assert process.stdin is not None
        told = {"order": order.to_json(), "path": sys.path}
        with suppress(BrokenPipeError):  # it is gone already; `ended` tells
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.flush()
        self._running[order.name] = process, said
        self._started += 1

    def ended(self) -> list[End]:
        """Those that ended since the last call."""
        found = []
        for name, (process, said) in list(self._running.items()):
            code = process.poll()
            if code is None:
                continue
            del self._running[name]
            found.append(End(name, code < 0, _last_line(said, code) if code > 0 else None))
            _close(process, said)
        return found

    def stop(self) -> None:
        """Interrupt all, so that they give their claims back; kill those that do not end."""
        for process, _ in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process, said in self._running.values():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _close(process, said)
        self._running = {}


def _devices() -> list[str]:
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given:
        return given.split(",")
    return [str(number) for number in range(torch.cuda.device_count())]


def _last_line(said: Any, code: int) -> str:
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"a worker ended with {code} and said nothing"


def _close(process: subprocess.Popen, said: Any) -> None:
    said.close()
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
