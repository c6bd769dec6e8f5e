"""Ablations: each one fires, and does nothing where it should do nothing."""

from __future__ import annotations

import numpy as np

from probe.ablate import Knockout, Random, Reduce, fastv, layer
from probe.ablate.base import Ablation
from probe.doctor.cases import FIRES, known, middle, neutral
from probe.doctor.check import Check, failed, measured, skipped
from probe.doctor.subject import Subject
from probe.engine import forward
from probe.errors import ProbeError

MASKED = "dropping tokens equals masking them"
FIRE = (
    "it must change what it says it changes: check its place, and that the events it implements "
    "are called for this family"
)
NEUTRAL = "with a neutral parameter start() must return None, and the full path must be exact"


def each_ablation(subject: Subject) -> list[Check]:
    """One check for every ablation there is, and for the user's own."""
    found = [_check(f"ablation {name}", one, subject) for name, one in known(subject)]
    return found + [_check(f"ablation {one}", one, subject) for one in subject.extra]


def masking(subject: Subject) -> Check:
    """A run without some tokens is the run in which nothing sees them."""
    model, x = subject.model, subject.x
    apart = []
    for one in (fastv(middle(subject), 0.5), Reduce(at=layer(0), score=Random(), keep=0.5)):
        short = model.run(x, ablate=[one])
        gone = tuple(np.flatnonzero(~short.kept.values[-1]).tolist())
        others = tuple(np.flatnonzero(short.kept.values[-1]).tolist())
        cut = Knockout((gone, others), layers=range(one.at.k, model.n_layers))
        apart.append(subject.apart(short.logits, model.run(x, ablate=[cut]).logits))
    return measured(
        MASKED,
        max(apart),
        subject.limits.logits,
        "logits, from a middle layer and before the first",
        "the layers get something that is not indexed by the tokens kept (masks, positions, "
        "features added in later layers)",
    )


def _check(name: str, one: Ablation | None, subject: Subject) -> Check:
    if one is None:
        todo = "give one with its arguments, doctor(model, ablate=[...])"
        return skipped(name, "needs arguments", todo)
    try:
        ablated = subject.model.run(subject.x, ablate=[one])
    except ProbeError as error:
        if FIRES in str(error):
            return failed(name, str(error), FIRE)
        return skipped(name, f"refused: {error}")
    change = subject.apart(ablated.logits, subject.run.logits)
    if change <= subject.identical:
        return failed(name, f"{one} ran and changed no logit", FIRE)
    idle = neutral(one)
    if idle is None:
        return measured(name, 0.0, 0.0, f"changes logits by {change:.1g}; no neutral form", FIRE)
    same = subject.model.run(subject.x, ablate=[idle]).logits
    bits = subject.apart(same, subject.run.logits)
    if bits > subject.identical:
        return measured(name, bits, subject.identical, f"{idle} is not bit-identical", NEUTRAL)
    forced = forward.run(subject.model, subject.x, ablations=[idle], force=True).logits
    return measured(
        name,
        subject.apart(forced, subject.run.logits),
        subject.limits.logits,
        f"changes logits by {change:.1g} of the largest; neutral bit-identical; full path within",
        NEUTRAL,
    )
