"""The prompt: which positions the vision tower fills, and the seconds written into the text."""

from __future__ import annotations

import re

import numpy as np

from probe.doctor.check import Check, failed, measured, ok, skipped
from probe.doctor.subject import Subject, entering, plain_logits

PLACEHOLDERS = "placeholders"
TIMESTAMPS = "timestamps"
FORWARD = "forward pass"
_CLOCK = re.compile(r"\d+(?::\d+)+(?:\.\d+)?|\d+(?:\.\d+)?")


def forward_pass(subject: Subject) -> Check:
    """Transformers' own forward gives finite logits, the same twice."""
    readout = subject.x.layout.readout
    if not np.isfinite(plain_logits(subject.model, subject.x.inputs, readout)).all():
        return failed(FORWARD, "NaN or Inf in the logits", "load it with dtype=float32")
    tokens = len(subject.x.layout)
    if subject.repeat == 0:
        return ok(FORWARD, f"{tokens} tokens, finite, the same twice")
    # Sums without a fixed order are rounding; then nothing is compared more closely than this.
    return measured(
        FORWARD,
        subject.repeat,
        subject.limits.logits,
        f"{tokens} tokens, finite; two equal calls differ",
        "the model keeps state between calls or draws random numbers: call .eval(), and "
        "torch.use_deterministic_algorithms(True) on a GPU",
    )


def placeholders(subject: Subject) -> Check:
    """The positions whose embedding is not that of their token id are the layout's visual ones."""
    model, x = subject.model, subject.x
    merged = entering(model, x)["inputs_embeds"][0]
    words = model.hf.get_input_embeddings()(x.inputs["input_ids"])[0]
    filled = (merged != words.to(merged.device)).any(1).cpu().numpy()
    named = np.isin(x.layout.role, ("video", "image", "newline", "cls"))
    wrong = np.flatnonzero(filled != named)
    if len(wrong):
        first = int(wrong[0])
        how = "is filled by the vision tower" if filled[first] else "is not filled"
        return failed(
            PLACEHOLDERS,
            f"token {first} ({x.layout.role[first]}) {how}; {len(wrong)} tokens are wrong",
            "video_token and image_token of the family must name the config fields of the "
            "placeholders, and grid must return one entry for each",
        )
    return ok(PLACEHOLDERS, f"{filled.sum()} tokens come from the vision tower, as the layout says")


def timestamps(subject: Subject) -> Check:
    """The seconds in the prompt's text are those of the frames they stand before."""
    family, layout = subject.model.family, subject.x.layout
    clip = layout.clips[0]
    written = layout.role == "timestamp"
    if family.timestamps is None:
        if not (written & np.array([bool(_CLOCK.search(t)) for t in layout.tokens])).any():
            return skipped(TIMESTAMPS, "this family writes no seconds into the prompt")
        return skipped(
            TIMESTAMPS,
            "the prompt holds numbers beside the frames",
            "set timestamps= in the family to have them checked",
        )
    seconds = layout.seconds[clip.first : clip.first + clip.frames]
    expected = np.asarray(family.timestamps(clip, seconds), dtype=float)
    found, digits = [], []
    for group in range(len(expected)):
        here = np.flatnonzero(written & (layout.group == group))
        text = "".join(layout.tokens[p] for p in here)
        match = _CLOCK.search(text)
        if match is None:
            return failed(
                TIMESTAMPS,
                f"no seconds in the text before {layout.groups[group]}: '{text}'",
                "the processor was not given the frames' times, or placeholder= of the family "
                "does not cover the text that it writes",
            )
        found.append(_seconds(match[0]))
        digits.append(len(match[0].partition(".")[2]))
    rounding = 0.51 * 10.0 ** -min(digits)  # of what is written
    apart = float(np.abs(np.array(found) - expected).max())
    return measured(
        TIMESTAMPS,
        apart,
        rounding,
        f"the text says {', '.join(f'{s:g}' for s in found)} s",
        f"the frames are at {', '.join(f'{s:.2f}' for s in expected)} s: pass the clip's own times "
        "to the processor (video_metadata)",
    )


def _seconds(text: str) -> float:
    """Seconds from "1:02.5" or "62.5"."""
    total = 0.0
    for part in text.split(":"):
        total = total * 60 + float(part)
    return total
