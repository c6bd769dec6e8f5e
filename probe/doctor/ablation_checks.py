"""Ablations: each one fires, and does nothing where it should do nothing."""

from __future__ import annotations

import numpy as np

from probe.ablate import Knockout, Random, Reduce, fastv, layer
from probe.ablate.base import Ablation
from probe.doctor.cases import FIRES, Case, known, middle
from probe.doctor.check import Check, failed, measured, skipped
from probe.doctor.subject import Subject
from probe.engine import forward
from probe.engine.sweep import runs
from probe.errors import ProbeError

STEPS = 3  # tokens generated to see what a cache does
SWEPT = "a sweep is its runs"
MASKED = "dropping tokens equals masking them"
FIRE = (
    "it must change what it says it changes: check its place, and that the events it implements "
    "are called for this family"
)
NEUTRAL = "with a neutral parameter start() must return None, and the full path must be exact"


def each_ablation(subject: Subject) -> list[Check]:
    """One check for an operator at every place, and for the user's own ablations."""
    return [_check(case, subject) for case in known(subject)]


def sweeping(subject: Subject) -> Check:
    """A sweep, which resumes what earlier layers made, is its runs one by one."""
    model, x = subject.model, subject.x
    lists: list[list[Ablation]] = []
    for case in known(subject):
        if not case.active.at_decode and not isinstance(_logits(subject, case.active), str):
            lists.append([case.active])
    apart = [
        subject.apart(found.logits, model.run(x, ablate=given).logits)
        for given, found, _ in runs(model, x, lists)
    ]
    return measured(
        SWEPT,
        max(apart),
        subject.limits.logits,
        f"logits of {len(apart)} ablations",
        "a layer depends on more than the stream that enters it: use run one by one",
    )


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


def _check(case: Case, subject: Subject) -> Check:
    ablated = _logits(subject, case.active)
    if isinstance(ablated, str):
        if FIRES in ablated:
            return failed(case.name, ablated, FIRE)
        return skipped(case.name, f"refused: {ablated}")
    plain = _plain(subject, case.active)
    change = subject.apart(ablated, plain)
    if change <= subject.identical:
        return failed(case.name, f"{case.active} ran and changed no logit", FIRE)
    idle = case.idle
    if idle is None:
        detail = f"changes logits by {change:.1g}; no neutral form"
        return measured(case.name, 0.0, 0.0, detail, FIRE)
    same = _logits(subject, idle)
    bits = subject.apart(plain if isinstance(same, str) else same, plain)
    if isinstance(same, str) or bits > subject.identical:
        detail = f"{idle} is not bit-identical" if bits else f"{idle}: {same}"
        return measured(case.name, bits or 1.0, subject.identical, detail, NEUTRAL)
    detail = f"changes logits by {change:.1g} of the largest; neutral bit-identical"
    if idle.acts in ("frames", "logits", "KV cache"):  # nothing in a prompt's layers to be forced
        return measured(case.name, bits, subject.identical, detail, NEUTRAL)
    forced = forward.run(subject.model, subject.x, ablations=[idle], force=True).logits
    value = subject.apart(forced, plain)
    return measured(case.name, value, subject.limits.logits, f"{detail}; full path within", NEUTRAL)


def _logits(subject: Subject, one: Ablation) -> np.ndarray | str:
    """Of a run, or of a few generated tokens where it acts behind the prompt; why not otherwise."""
    try:
        if one.at_decode:
            return subject.model.generate(subject.x, ablate=[one], max_new_tokens=STEPS).logits
        return subject.model.run(subject.x, ablate=[one]).logits
    except ProbeError as error:
        return str(error)


def _plain(subject: Subject, one: Ablation) -> np.ndarray:
    if one.at_decode:
        return subject.model.generate(subject.x, max_new_tokens=STEPS).logits
    return subject.run.logits
