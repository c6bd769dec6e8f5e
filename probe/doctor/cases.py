"""Each ablation with arguments that suit any clip, and its neutral form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from probe.ablate import Norm, Reduce, SparseReconstruction, Steer, ablations, fastv, layer
from probe.ablate.base import Ablation
from probe.ablate.edges import EdgeAblation
from probe.doctor.subject import Subject

FIRES = "did not fire"  # in the message of an ablation that changed nothing; others are refusals


def middle(subject: Subject) -> int:
    """A layer that has one before it."""
    return max(1, min(2, subject.model.n_layers - 1))


def known(subject: Subject) -> Iterator[tuple[str, Ablation | None]]:
    """Each registered ablation by name; None where it needs arguments that are the user's."""
    given = _given(subject)
    for name, made in ablations().items():
        try:
            one = given[name] if name in given else made()
        except TypeError:
            one = None
        yield name, one if isinstance(one, Ablation) else None


def neutral(one: Ablation) -> Ablation | None:
    """The same ablation with a parameter that leaves the model as it is; None if unknown.

    An ablation of a user's own may say what it is in a method `neutral()`.
    """
    own = getattr(one, "neutral", None)
    if callable(own):
        made = own()
        return made if isinstance(made, Ablation) else None
    if isinstance(one, EdgeAblation):
        return replace(one, edges=())
    if isinstance(one, Reduce):
        return replace(one, keep=1.0, keep_tokens=None)
    if isinstance(one, Steer):
        return replace(one, scale=0.0)
    return replace(one, off=(), error=True) if isinstance(one, SparseReconstruction) else None


def _given(subject: Subject) -> dict[str, Ablation]:
    rng, width, k = np.random.default_rng(0), subject.model.width, middle(subject)
    shapes = [(width, 8), (8,), (8, width), (width,)]
    weights = [(rng.normal(size=shape) / width**0.5).tolist() for shape in shapes]
    sparse: dict[str, Any] = {"off": range(8), "error": True}
    return {
        "Reduce": Reduce(at=layer(k), score=Norm(), keep=0.5),
        "fastv": fastv(k, 0.5),
        "Steer": Steer(rng.normal(size=width), at="video", layers=[k]),
        "SparseReconstruction": SparseReconstruction(weights, layer=k, **sparse),
    }
