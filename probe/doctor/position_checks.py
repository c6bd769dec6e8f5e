"""Position ids: they reach the decoder, they matter, and they are those transformers makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probe.doctor.check import Check, failed, ok, skipped
from probe.doctor.subject import Subject, entering, plain_logits, quiet, watching
from probe.models.encode import Example

REACH = "positions reach the decoder"
OWN = "positions are transformers' own"
SHIFT = 7
TODO = (
    "the model's forward must hand position_ids to its decoder, and the decoder's to its rotary "
    "embedding; without them three-axis positions fall back to counting tokens"
)


def positions_reach(subject: Subject) -> Check:
    """What the decoder gets is what the example says, and other ids give other logits."""
    model, x = subject.model, subject.x
    if "position_ids" not in x.inputs:
        return skipped(REACH, "this model's forward takes no position ids; its decoder counts")
    got = entering(model, x).get("position_ids")
    if got is None:
        return failed(REACH, "the decoder got no position ids", TODO)
    if not _same(got, x.inputs["position_ids"]):
        return failed(REACH, "the decoder got other position ids than the example's", TODO)
    moved = _shifted(x)
    readout = x.layout.readout
    passes: dict[str, Callable[[Example], np.ndarray]] = {
        "transformers' forward": lambda y: plain_logits(model, y.inputs, readout),
        "a run of probe": lambda y: model.run(y).logits,
    }
    change = 0.0
    for name, logits in passes.items():
        change = subject.apart(logits(moved), logits(x))
        if change <= subject.identical:
            what = f"moving half of the tokens by {SHIFT} positions changes no logit in {name}"
            return failed(REACH, what, TODO)
    how = f"moving half of the tokens by {SHIFT}"
    return ok(REACH, f"{how} changes logits by {change:.1g} of the largest")


def positions_own(subject: Subject) -> Check:
    """The example's ids are those that transformers makes itself, in prefill and decode."""
    model, x = subject.model, subject.x
    seen: list[tuple[Any, int]] = []

    def see(kwargs: dict[str, Any]) -> None:
        embeddings = kwargs.get("inputs_embeds")
        rows = kwargs["input_ids"] if embeddings is None else embeddings
        seen.append((kwargs.get("position_ids"), rows.shape[1]))

    inputs = {name: value for name, value in x.inputs.items() if name != "position_ids"}
    steps = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
    with watching(model.decoder, see), quiet(model.hf):
        model.hf.generate(**inputs, **steps)
    first = 0
    for step, (own, rows) in enumerate(seen):
        ours = model.position_ids(x, np.arange(first, first + rows))
        if own is None:  # the decoder counts tokens
            own = torch.arange(first, first + rows, device=ours.device)[None]
        if not _same(own, ours):
            where = "the prompt" if step == 0 else f"generated token {step}"
            return failed(
                OWN,
                f"for {where} probe gives other position ids than transformers",
                "the example's position ids come from the model's get_rope_index; check that it "
                "takes the processor's outputs by their names",
            )
        first += rows
    axes = model.position_ids(x, np.arange(1)).dim()
    many = "three axes" if axes == 3 else "one axis"
    return ok(OWN, f"{many}, the same in the prompt and {len(seen) - 1} generated tokens")


def _shifted(x: Example) -> Example:
    """The positions from the middle of the video on are larger, so that distances differ."""
    ids, video = x.inputs["position_ids"].clone(), x.layout.select("video")
    ids[..., max(1, int(video[len(video) // 2])) :] += SHIFT
    mask = {"attention_mask": torch.ones_like(x.inputs["input_ids"])}
    return replace(x, inputs=mask | x.inputs | {"position_ids": ids})


def _same(got: Tensor, ours: Tensor) -> bool:
    """Equal, where a model may put text positions before the three axes, or repeat one axis."""
    axes = ours.reshape(-1, ours.shape[-1])
    theirs = got.reshape(-1, got.shape[-1]).to(axes.device)
    if len(axes) == 1:
        return got.shape[-1] == ours.shape[-1] and bool((theirs == axes).all())
    if len(theirs) == 1:  # generated text: the three axes are equal
        return bool((axes == theirs).all())
    return theirs[-3:].shape == axes.shape and bool((theirs[-3:] == axes).all())
