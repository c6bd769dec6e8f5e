"""Generation: the tokens are transformers' own, and a cache changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from probe.ablate import Reduce, layer
from probe.ablate.scores import Norm
from probe.doctor.cases import FIRES, middle
from probe.doctor.check import Check, failed, measured, ok, skipped
from probe.doctor.subject import Subject, quiet
from probe.errors import ProbeError

PLAIN = "generate is transformers' own"
RECOMPUTE = "generate against full recompute"
REDUCED = "generate against recompute, tokens dropped"
STEPS: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4}
CACHE = (
    "the cache or the positions of generated tokens differ from those of one full pass: check "
    "that the decoder takes position_ids and past_key_values"
)


def plain(subject: Subject) -> Check:
    """The tokens that transformers' own generate gives."""
    model, x = subject.model, subject.x
    inputs = {name: value for name, value in x.inputs.items() if name != "position_ids"}
    with quiet(model.hf):
        theirs = model.hf.generate(**inputs, do_sample=False, **STEPS)[0].tolist()
    ours = model.generate(x, **STEPS).meta["generated"]
    if theirs[-len(ours) :] != ours:
        return failed(PLAIN, f"{ours}, transformers: {theirs[-len(ours) :]}", CACHE)
    return ok(PLAIN, f"the same {len(ours)} tokens")


def recompute(subject: Subject) -> Check:
    """Logits of each step against one pass over the prompt and what was generated."""
    return _against(subject, RECOMPUTE, [])


def recompute_reduced(subject: Subject) -> Check:
    """The same with half of the video tokens dropped inside the stack."""
    half = Reduce(at=layer(middle(subject)), score=Norm(), keep=0.5)
    try:
        return _against(subject, REDUCED, [half])
    except ProbeError as error:
        if FIRES in str(error):
            raise
        return skipped(REDUCED, f"refused: {error}")


def _against(subject: Subject, name: str, ablate: list) -> Check:
    model, x = subject.model, subject.x
    generated = model.generate(x, ablate=ablate, **STEPS)
    whole = model.run(model.force(x, generated.meta["generated"]), ablate=ablate)
    count = len(x.layout)
    if not np.array_equal(generated.kept.values[:, :count], whole.kept.values[:, :count]):
        return failed(name, "generate and one full pass keep different tokens", CACHE)
    apart = subject.apart(generated.logits, whole.logits)
    steps = len(generated.logits)
    return measured(name, apart, subject.limits.logits, f"logits of {steps} steps", CACHE)
