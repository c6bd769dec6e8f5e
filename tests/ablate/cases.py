"""Ablations that every oracle is tried on."""

from __future__ import annotations

from probe.ablate import Knockout, Norm, NoRope, Random, Reduce, Uniform, edvt, fastv, layer

ACTIVE = [
    fastv(1, 0.5),
    fastv(2, 0.25),
    Reduce(at=layer(0), score=Random(1), keep=0.3),
    Reduce(at=layer(2), score=Uniform(), keep=0.0),
    Reduce(at=layer(1), score=Norm(), keep_tokens=3, of="frames 1-3 + newline"),
    edvt(),
    NoRope("video -> last", layers=[0, 2]),
    NoRope(["question -> text", "frame 0 -> video"], layers=1),
    Knockout("video -> text"),
    Knockout("frames 1-2 -> readout", layers=[1, 2]),
    Knockout(["video -> question", ("template", "last")], layers="0-1"),
]
