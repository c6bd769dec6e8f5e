"""Contributions sum to the logit that the model gives."""

from __future__ import annotations

import numpy as np

from probe.capture import Contributions
from probe.doctor.check import Check, measured
from probe.doctor.subject import Subject

NAME = "contributions sum to the logit"


def contributions(subject: Subject) -> Check:
    """The parts of a logit difference against the model's own logits, and heads against layers."""
    best, second = np.argsort(-subject.run.logits[-1], kind="stable")[:2].tolist()
    step = len(subject.x.layout.readout) - 1
    run = subject.model.run(subject.x, [Contributions(best, versus=second, step=step)])
    parts = run.data.contributions
    wanted = float(run.logits[-1, best] - run.logits[-1, second])
    # A bias of the unembedding is in the logit and in no part.
    given = float(run.data.contributions_logit)
    error = abs(float(run.data.contributions_error))
    heads = run.data.contributions_attention.sum(["head", "source_group"])
    size = max(1.0, float(np.abs(parts).sum()))
    apart = max(abs(given - wanted), error) / size
    split = float(np.abs(heads - parts.sel(part="attention")).max()) / size
    return measured(
        NAME,
        max(apart, split),
        subject.limits.contributions,
        f"logit difference {wanted:.3g}; parts within {apart:.1g}, heads within {split:.1g} "
        "of the sum of their sizes",
        "added= of the family must name the modules whose outputs go into the residual stream, "
        "output= the attention's output projection, head= the unembedding; a norm, scale or "
        "cap between them and the logits is not in the sum",
    )
