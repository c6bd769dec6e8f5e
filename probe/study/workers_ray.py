"""Workers of a study as tasks of a Ray cluster."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from probe.errors import ProbeError
from probe.study.order import Order
from probe.study.pool import End
from probe.study.worker import work


class Rays:
    """Workers on a Ray cluster, each with a CPU, and a GPU where the cluster has any.

    Args:
        workers: CPUs of a cluster that is started here.
        address: of a cluster that runs; None for the one that RAY_ADDRESS names, or for a new one
            on this machine, which ends with the study.

    Raises:
        ProbeError: Ray is not installed, or there is no cluster at that address.
    """

    def __init__(self, workers: int, address: str | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise ProbeError("ray is not installed; pip install probe-video[ray]") from None
        self._ray: Any = ray
        self._own = not ray.is_initialized()
        address = address or os.environ.get("RAY_ADDRESS")
        if self._own:
            here: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
            how: dict[str, Any] = {"address": address} if address else here
            try:
                ray.init(**how, log_to_driver=False, logging_level=logging.ERROR)
            except Exception as error:  # Ray raises that itself
                reason = " ".join(str(error).split())[:200]
                raise ProbeError(
                    f"ray: no cluster at {address or 'this machine'}: {reason}"
                ) from None
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        self._task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_work)
        self._running: dict[Any, str] = {}

    def start(self, order: Order) -> None:
        """Start one more, wherever there is room."""
        self._running[self._task.remote(order.to_json(), sys.path)] = order.name

    def ended(self) -> list[End]:
        """Those that ended since the last call."""
        if not self._running:
            return []
        errors = self._ray.exceptions
        done, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        found = []
        for task in done:
            name = self._running.pop(task)
            try:
                found.append(End(name, False, self._ray.get(task)))
            except errors.RayTaskError as error:  # it raised; the last line says what
                found.append(End(name, False, str(error).strip().splitlines()[-1]))
            except errors.RayError:  # its process or its machine is gone
                found.append(End(name, True))
        return found

    def stop(self) -> None:
        """Interrupt all; a cluster that was started here ends."""
        for task in self._running:
            self._ray.cancel(task)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=10)
        self._running = {}
        if self._own:
            self._ray.shutdown()


def _work(told: dict[str, Any], path: list[str]) -> str | None:
    """On a machine of the cluster; an error for the user in one line, or None."""
    sys.path[:] = [*sys.path, *(one for one in path if one not in sys.path)]
    try:
        work(Order(**told))
    except ProbeError as error:
        return " ".join(str(error).split())
    return None
