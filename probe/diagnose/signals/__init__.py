"""Signals of hallucination: scores of an answer's tokens behind one interface.

`Signal` says what one is, `own` and `given` make the `Answer` that it reads, `SIGNALS` names them
all, `HallucinationSignals` runs the cheap ones as a diagnosis, `HallucinationScore` combines them.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Answer": "answer",
    "AttendedSupport": "lensed",
    "CGC": "similar",
    "Entropy": "likelihood",
    "GLSim": "similar",
    "HallucinationScore": "score",
    "HallucinationSignals": "scalars",
    "InternalConfidence": "lensed",
    "NLL": "likelihood",
    "OptionMargin": "likelihood",
    "PAS": "attended",
    "Paired": "paired",
    "SVAR": "attended",
    "SampledAgreement": "semantic",
    "Signal": "base",
    "TokenIndex": "likelihood",
    "TokenMargin": "likelihood",
    "VideoContribution": "contributed",
    "VideoInfluence": "paired",
    "VisualMassNoSinks": "attended",
    "Word": "words",
    "fit": "fitting",
    "given": "answer",
    "labels": "supported",
    "own": "answer",
    "signs": "scalars",
    "token_labels": "supported",
}
SIGNALS = tuple(
    name
    for name in _HOMES
    if name[0].isupper()
    and not name.startswith("Halluc")
    and name not in ("Answer", "Signal", "Word")
)

__all__ = [
    "SIGNALS",
    *_HOMES,
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'probe.diagnose.signals' has no attribute {name!r}")
    return getattr(importlib.import_module(f"probe.diagnose.signals.{_HOMES[name]}"), name)
