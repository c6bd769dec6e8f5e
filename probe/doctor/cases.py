"""Every operator with arguments that suit any clip, and the same with nothing to change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from probe.ablate import Patch, SparseReconstruction, Steer, parse
from probe.ablate.base import Ablation
from probe.ablate.edges import EdgeAblation
from probe.ablate.reduce import Reduce
from probe.capture import Activations
from probe.doctor.subject import Subject

FIRES = "did not fire"  # in the message of an ablation that changed nothing; others are refusals
# By name: how it is written for a middle layer {k}, and how with nothing to change.
WRITTEN = {
    "Reduce": (
        "Reduce(at=layer({k}), score=Norm(), keep=0.5)",
        "Reduce(at=layer({k}), score=Norm(), keep=1.0)",
    ),
    "Reduce, merged before the decoder": (
        "Reduce(at=tokens(), score=Norm(), keep=0.5, rest=Merge())",
        "Reduce(at=tokens(), score=Norm(), keep=1.0, rest=Merge())",
    ),
    "Reduce, between attention and MLP": (
        "Reduce(at=mid({m}), score=Norm(), keep=0.5)",
        "Reduce(at=mid({m}), score=Norm(), keep=1.0)",
    ),
    "Reduce, passing a layer by": (
        "Reduce(at=layer({k}), score=Norm(), keep=0.5, rest=Bypass())",
        "Reduce(at=layer({k}), score=Norm(), keep=1.0, rest=Bypass())",
    ),
    "fastv": ("fastv({k}, 0.5)", "fastv({k}, 1.0)"),
    "Frames": ('Frames("blank")', 'Frames("blank", frames=[])'),
    "Encoder": ("Encoder(skip=[0])", "Encoder()"),
    "Knockout": ('Knockout("video -> text")', "Knockout([])"),
    "Mask": ('Mask("blackout", layers=[{k}])', ""),
    "BlindHeads": ("BlindHeads([[{k}, 0]])", "BlindHeads([])"),
    "NoRope": ('NoRope("video -> text", blend=0.5)', "NoRope([])"),
    "edvt": ("edvt()", "edvt(1.0)"),
    "Rope": ("Rope(time=1.0)", "Rope()"),
    "Scale": ('Scale("attention", layers=[{k}], factor=0.5)', "Scale(factor=1.0)"),
    "Ablate": ('Ablate("mlp", layers=[{k}])', 'Ablate("mlp", at=[])'),
    "SliceMLP": ("SliceMLP(2.0)", "SliceMLP(1.0)"),
    "Cache": ("Cache(score=Norm(), keep=0.5)", "Cache(score=Norm(), keep=1.0)"),
    "Contrast": ('Contrast("blank", 0.5, 0.0)', 'Contrast("blank", 0.0, 0.0)'),
}


@dataclass(frozen=True)
class Case:
    """One ablation to be proved.

    Attributes:
        name: what the check is called.
        active: what has to change the logits.
        idle: what has to leave them bit-identical; None where that is not known.
    """

    name: str
    active: Ablation
    idle: Ablation | None = None


def middle(subject: Subject) -> int:
    """A layer that has one before it."""
    return max(1, min(2, subject.model.n_layers - 1))


def known(subject: Subject) -> Iterator[Case]:
    """The operators at every place, then the user's own ablations."""
    where = {"k": middle(subject), "m": min(middle(subject), subject.model.n_layers - 2)}
    for name, texts in WRITTEN.items():
        made = [parse(text.format(**where))[0] if text else None for text in texts]
        if made[0] is not None and ("mid" not in texts[0] or where["m"] >= 0):
            yield Case(f"ablation {name}", made[0], made[1])
    for name, one in _measured(subject).items():
        yield Case(f"ablation {name}", one, neutral(one))
    for one in subject.extra:
        yield Case(f"ablation {one}", one, neutral(one))


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
        plain = one.keep is not None or one.keep_tokens is not None
        return replace(one, keep=1.0, keep_tokens=None) if plain else None
    if isinstance(one, Steer):
        return replace(one, scale=0.0)
    if isinstance(one, Patch):
        return replace(one, at=(), to=None)
    return replace(one, off=(), error=True) if isinstance(one, SparseReconstruction) else None


def _measured(subject: Subject) -> dict[str, Ablation]:
    """Those that hold numbers: directions, weights, another run."""
    rng, width, k = np.random.default_rng(0), subject.model.width, middle(subject)
    shapes = [(width, 8), (8,), (8, width), (width,)]
    weights = [(rng.normal(size=shape) / width**0.5).tolist() for shape in shapes]
    sparse: dict[str, Any] = {"off": range(8), "error": True}
    video = subject.x.layout.select("video").tolist()
    here, there = video[: len(video) // 2], video[-(len(video) // 2) :]
    run = subject.model.run(subject.x, [Activations("residual", there)])
    return {
        "Steer": Steer(rng.normal(size=width), at="video", layers=[k]),
        "SparseReconstruction": SparseReconstruction(weights, layer=k, **sparse),
        "Patch": Patch(run, at=there, to=here, layers=[k]),
    }
