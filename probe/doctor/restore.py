"""The model after all this, and after a run that raised in the middle, is as it was before."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from probe.ablate import Norm, Reduce, layer
from probe.capture import AttentionMass
from probe.capture.base import Capture
from probe.doctor.cases import middle
from probe.doctor.check import Check, failed, ok
from probe.doctor.fingerprint import Fingerprint
from probe.doctor.subject import Subject

if TYPE_CHECKING:
    from probe.engine.session import Session

NAME = "model restored"
TODO = (
    "the model writes on itself in its forward: keep state in the cache or in what it returns; "
    "if it does so without probe too, load it anew for each experiment"
)


class _Stop(Exception):
    """What a run is ended with."""


@dataclass(frozen=True)
class _Failing(Capture):
    """Raises in the last layer."""

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        if layer == session.model.n_layers - 1:
            raise _Stop


def restored(subject: Subject, before: Fingerprint) -> Check:
    """Parameters, buffers, hooks, configs and plain attributes against those at the start."""
    model, x = subject.model, subject.x
    half = Reduce(at=layer(middle(subject)), score=Norm(), keep=0.5)
    with suppress(_Stop):
        model.run(x, [AttentionMass(), _Failing()], [half])
    after = Fingerprint(model.hf)
    changed = before.changes(after)
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return failed(NAME, f"{changed[0]}{more} changed", TODO)
    return ok(NAME, f"{len(after.found)} tensors, hooks, configs, attributes; after an error too")
