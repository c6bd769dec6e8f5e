"""Diagnoses of one's own, as a user's module has them: one that kills its process."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from probe.diagnose import Diagnosis
from probe.diagnose.case import Case


@dataclass(frozen=True)
class Length(Diagnosis):
    """Tokens of the prompt; the process dies on one sample.

    Attributes:
        kills: id of that sample.
    """

    kills: str = ""

    def measure(self, case: Case) -> dict[str, float]:
        if case.id == self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"length": float(len(case.x.layout))}
