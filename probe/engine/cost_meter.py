"""What is measured while a run is on: its times, its peak memory, the lengths of every forward."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
SLACK = 4_000_000  # bytes; the two are read one after the other


class Meter:
    """Context manager around the forward pass, or the generation, of a run.

    Attributes:
        seconds: wall time inside.
        starts: seconds from the beginning to the start of each forward of the decoder. Where
            there are two, the second is when the first token was known.
        keys: for each finished forward but the last, per layer, how many keys its rows had.
        middles: by layer, rows that go through its MLP, where it loses some on the way to it.
        memory, peak: bytes in use at the start, and at most, on the model's device: memory that
            torch allocated there on CUDA, resident memory of the process on the CPU. None where
            it cannot be told.
    """

    def __init__(self, device: torch.device | str) -> None:
        self._cuda: Any = None
        if str(device).startswith("cuda"):
            import torch

            self._cuda = torch.cuda
        self._device = device
        self.seconds = 0.0
        self.starts: list[float] = []
        self.keys: list[list[int]] = []
        self.middles: dict[int, int] = {}
        self.memory: int | None = None
        self.peak: int | None = None
        self._started: float | None = None
        self._before: int | None = None

    def __enter__(self) -> Meter:
        self.starts, self.keys, self.middles = [], [], {}
        if self._cuda:
            self._cuda.synchronize(self._device)
            self._cuda.reset_peak_memory_stats(self._device)
            self.memory = self._cuda.memory_allocated(self._device)
        else:
            _forget_peak()
            self.memory, self._before = _resident("VmRSS"), _resident("VmHWM")
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        if self._cuda:
            self._cuda.synchronize(self._device)
        self.seconds = time.perf_counter() - (self._started or 0.0)
        self._started = None
        if self._cuda:
            self.peak = self._cuda.max_memory_allocated(self._device)
            return
        peak = _resident("VmHWM")
        # A peak that the system would not forget says something only where this run surpassed it.
        told = peak is not None and (self._forgot or peak > (self._before or 0))
        self.peak = peak if told else None

    def turn(self, present: Sequence[np.ndarray]) -> None:
        """A forward begins, and the one before it is over. Nothing outside the context.

        Args:
            present: keys of each layer, as the forward before left them.
        """
        if self._started is None:
            return
        if self.starts:
            self.keys.append([len(keys) for keys in present])
        if self._cuda and len(self.starts) < 2:
            self._cuda.synchronize(self._device)
        self.starts.append(time.perf_counter() - self._started)

    @property
    def before_decoder(self) -> float | None:
        """Seconds to the decoder's first forward: vision tower, projector, embedding."""
        return self.starts[0] if self.starts else None

    @property
    def first_token(self) -> float | None:
        """Seconds until the first generated token was known; None without a second forward."""
        return self.starts[1] if len(self.starts) > 1 else None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens after the first, by the time that they took."""
        first = self.first_token
        return None if first is None else (len(self.starts) - 1) / (self.seconds - first)

    @property
    def _forgot(self) -> bool:
        """Whether the peak was forgotten at the start, but for what the process then held."""
        before, held = self._before, self.memory
        return before is not None and held is not None and before - held <= SLACK


def _forget_peak() -> None:
    """Let the system begin its record of this process's peak memory anew, where it can."""
    try:
        CLEAR.write_text("5")
    except OSError:  # not Linux, or not allowed here
        return


def _resident(field: str) -> int | None:
    """VmRSS (now) or VmHWM (peak) of this process in bytes; None off Linux."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith(f"{field}:")), None)
    return None if found is None else int(found.split()[1]) * 1024
