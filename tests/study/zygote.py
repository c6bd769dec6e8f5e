"""A process that has everything imported, and forks others that run the small study.

A fork is there in milliseconds, so that many can be killed in a test. Lines of JSON go in:
{"run": folder of results, "study": folder of the spec, "name": ...} gives {"pid": ...};
{"wait": pid} gives {"status": ...} when it has ended. An empty one gives {} when it is ready.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any


class Zygote:
    """The process, from outside."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.study.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(os.environ) | {"OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[2],
            text=True,
        )

    def ready(self) -> None:
        """Wait until everything is imported."""
        self._ask({})

    def run(self, folder: Path, spec: Path, **more: Any) -> int:
        """Start a run; its process."""
        return self._ask({"run": str(folder), "study": str(spec), "more": more})["pid"]

    def wait(self, pid: int) -> int:
        """Wait for the end of a run; what `waitstatus_to_exitcode` makes of it."""
        return self._ask({"wait": pid})["status"]

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def main() -> None:
    import torch

    from probe.study import fingerprint
    from probe.study.runner import run_study
    from tests import tiny
    from tests.study.small import study

    torch.set_num_threads(1)
    model = tiny.build(tiny.EVEN, seed=2)
    fingerprint.model(model), fingerprint.code()
    for line in sys.stdin:
        told = json.loads(line)
        if not told:
            print("{}", flush=True)
            continue
        if "wait" in told:
            status = os.waitstatus_to_exitcode(os.waitpid(told["wait"], 0)[1])
            print(json.dumps({"status": status}), flush=True)
            continue
        pid = os.fork()
        if pid:
            print(json.dumps({"pid": pid}), flush=True)
            continue
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
        try:
            small = study(Path(told["study"]))
            run_study(small, told["run"], loaded={"tiny": model}, **told["more"])
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os._exit(0)  # without the seconds that torch takes to leave


if __name__ == "__main__":
    main()
