"""Subject: the checkpoint under examination, what it is shown, and plain passes through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probe.doctor.limits import Limits
from probe.engine.attributes import Attributes

if TYPE_CHECKING:
    from probe.ablate.base import Ablation
    from probe.engine.result import Run
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel
    from probe.video import Clip


@dataclass
class Subject:
    """One checkpoint and its example.

    Attributes:
        model: what is examined.
        noise: the generated clip; `noise_example` its encoding.
        x: the example that runs: of the user's clip, or of the noise.
        limits: by the model's dtype.
        extra: ablations of the user's own to be checked too.
    """

    model: VideoModel
    noise: Clip
    noise_example: Example
    x: Example
    limits: Limits
    extra: tuple[Ablation, ...] = ()

    @cached_property
    def run(self) -> Run:
        """One run without captures or ablations."""
        return self.model.run(self.x)

    @cached_property
    def scale(self) -> float:
        """The largest logit in absolute value; differences are relative to it."""
        return max(1.0, float(np.abs(self.run.logits).max()))

    @cached_property
    def repeat(self) -> float:
        """How far two equal calls of transformers' own forward are apart: 0, or what a device whose
        sums have no fixed order does to them.
        """
        readout = self.x.layout.readout
        one, two = (plain_logits(self.model, self.x.inputs, readout) for _ in range(2))
        return float(np.abs(one - two).max()) / max(1.0, float(np.abs(one).max()))

    @property
    def identical(self) -> float:
        """How far logits may be apart that should be bit-identical: 0 where equal calls are."""
        return 10 * self.repeat

    def apart(self, logits: np.ndarray, other: np.ndarray) -> float:
        """Largest difference between logits, relative to the largest logit."""
        return float(np.abs(logits - other).max()) / self.scale


class _Enough(Exception):
    """Ends a pass early."""


@contextmanager
def quiet(hf: Any) -> Iterator[None]:
    """A pass of the bare model that leaves no state on it and keeps no graph."""
    attributes = Attributes(hf)
    try:
        with torch.no_grad():
            yield
    finally:
        attributes.restore()


def plain_logits(model: VideoModel, inputs: dict[str, Tensor], readout: np.ndarray) -> np.ndarray:
    """Logits [readout, vocab] of transformers' own forward, without anything of probe."""
    wanted = torch.as_tensor(readout, device=model.hf.device)
    with quiet(model.hf):
        found = model.hf(**inputs, use_cache=False, logits_to_keep=wanted).logits[0]
    if len(found) != len(readout):  # some families compute every position's logits all the same
        found = found[wanted]
    return found.float().cpu().numpy()


@contextmanager
def watching(module: Any, see: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Call `see` with the keyword arguments of every call of a module."""
    handle = module.register_forward_pre_hook(
        lambda _, __, kwargs: see(dict(kwargs)), with_kwargs=True
    )
    try:
        yield
    finally:
        handle.remove()


def entering(model: VideoModel, x: Example) -> dict[str, Any]:
    """What the decoder is called with in transformers' own forward; the decoder does not run."""
    seen: dict[str, Any] = {}

    def stop(kwargs: dict[str, Any]) -> None:
        seen.update(kwargs)
        raise _Enough

    try:
        with watching(model.decoder, stop), quiet(model.hf):
            model.hf(**x.inputs, use_cache=False, logits_to_keep=1)
    except _Enough:
        pass
    return seen
