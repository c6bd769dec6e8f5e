"""How much memory runs on longer clips will take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probe.capture import AttentionEntropy, AttentionMass, AttentionReceived
from probe.doctor.check import Check, ok
from probe.doctor.example import QUESTION, noise_clip
from probe.doctor.subject import Subject

if TYPE_CHECKING:
    from probe.models.encode import Example

NAME = "memory"
FRAMES = (8, 32, 128)


@dataclass(frozen=True)
class Need:
    """What a clip of some frames takes.

    Attributes:
        frames, tokens: of the prompt.
        run: bytes of a forward pass that captures text rows (mass, entropy, received).
        cache: bytes of keys and values in `generate`.
        dense: bytes of one layer's dense attention map in float32, for comparison.
    """

    frames: int
    tokens: int
    run: int
    cache: int
    dense: int


def needs(subject: Subject) -> list[Need]:
    """For 8, 32 and 128 frames, or the number that the family is fixed to.

    Tokens and bytes grow by as much with each frame, so that two short clips tell the rest.
    """
    model = subject.model
    here, x = len(subject.noise), subject.noise_example
    if model.family.frames is not None:
        return [_need(subject, here, len(x.layout), _bytes(subject, x))]
    twice = noise_clip(2 * here, x.layout.clips[0].size)
    y = model.encode(twice, QUESTION, frames=None)
    tokens = (len(y.layout) - len(x.layout)) / here
    grows = (_bytes(subject, y) - _bytes(subject, x)) / here
    found = []
    for frames in FRAMES:
        more = frames - here
        count = len(x.layout) + round(tokens * more)
        found.append(_need(subject, frames, count, round(_bytes(subject, x) + grows * more)))
    return found


def memory(subject: Subject) -> Check:
    """The estimates as one line."""
    said = [
        f"{need.frames} frames: {need.tokens} tokens, {readable(need.run)} a run, "
        f"{readable(need.cache)} cache"
        for need in needs(subject)
    ]
    weights = sum(p.numel() * p.element_size() for p in subject.model.hf.parameters())
    return ok(NAME, f"weights {readable(weights)}; " + "; ".join(said))


def readable(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _bytes(subject: Subject, x: Example) -> int:
    captures = [AttentionMass(), AttentionEntropy(), AttentionReceived()]
    table = subject.model.estimate(x, captures)
    return int(table.set_index("part").loc["together", "bytes"])


def _need(subject: Subject, frames: int, tokens: int, run: int) -> Need:
    model = subject.model
    item = model.hf.dtype.itemsize
    cache = 2 * model.n_layers * model.n_kv_heads * model.head_dim * item * tokens
    return Need(frames, tokens, run, cache, int(np.prod([4, model.n_heads, tokens, tokens])))
