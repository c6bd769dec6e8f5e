"""Contrast: logits against those of a second stream that sees less."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from probe.ablate.base import Ablation
from probe.ablate.compose import in_order
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.engine.session import Session
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel

FRAMES = ("blank", "shuffled", "noise", "no video")
DIFFUSION = 1000  # steps of the noise schedule


@dataclass(frozen=True)
class Contrast(Ablation):
    """Contrastive decoding: l* = (1 + alpha) l - alpha l2, among tokens that are plausible.

    l2 are the logits of a second stream: the same text and the same tokens so far, with other
    frames or under other ablations, through a cache of its own. Tokens with l < max l + log beta
    are removed (-inf). The ablations beside this one act on the first stream only.

    Attributes:
        against: "noise" (pixels of the clip after `amount` diffusion steps, as in VCD), "blank"
            (grey frames), "shuffled" (frames in another order), "no video" (the text alone); or
            ablations of the second stream.
        alpha: weight of the difference; with 0 only the cut is left.
        beta: plausibility: the part of the largest probability that a token must have, in [0, 1];
            0 keeps all, 1 only the likeliest token.
        amount: steps of noise, of 1,000.
        seed: of noise and order.
    """

    place: ClassVar[str] = "logits"
    source: ClassVar[str] = "VCD (Leng et al. 2023, arXiv 2311.16922); DAMRO (arXiv 2410.04514)"
    always_shown: ClassVar[tuple[str, ...]] = ("against", "alpha", "beta")

    against: str | Ablation | tuple[Ablation, ...] = "noise"
    alpha: float = 1.0
    beta: float = 0.1
    amount: int = 500
    seed: int = 0

    def against_what(self) -> list[Ablation]:
        """Ablations of the second stream; none where it differs in its frames.

        Raises:
            ProbeError: neither a word that is known nor ablations.
        """
        given = self.against
        if isinstance(given, str):
            if given not in FRAMES:
                words = ", ".join(FRAMES)
                raise ProbeError(f'{self.kind}: against="{given}"; write {words}, or ablations')
            return []
        several = [given] if isinstance(given, Ablation) else list(given)
        flat = [one for item in several for one in (item if isinstance(item, tuple) else [item])]
        if not flat or not all(isinstance(one, Ablation) for one in flat):
            raise ProbeError(f"{self.kind}: against has to be a word or ablations")
        if any(one.acts == "logits" for one in flat):
            raise ProbeError(f"{self.kind}: the second stream cannot have a contrast of its own")
        return in_order(flat)

    def start(self, session: Session) -> dict | None:
        """Neutral without a clip, and with alpha=0 and beta=0."""
        ablations = self.against_what()
        if not isinstance(self.alpha, int | float) or not math.isfinite(self.alpha):
            raise ProbeError(f"{self.kind}: alpha={self.alpha}; it is a number, 1 in VCD")
        if not isinstance(self.beta, int | float) or not 0 <= self.beta <= 1:
            raise ProbeError(f"{self.kind}: beta={self.beta}; it is a fraction from 0 to 1")
        if not isinstance(self.amount, int) or not 0 < self.amount <= DIFFUSION:
            raise ProbeError(f"{self.kind}: amount={self.amount}; it is 1 to {DIFFUSION} steps")
        if not session.layout.clips or (not session.force and self.alpha == 0 == self.beta):
            return None
        if ablations:  # what is wrong with them is said before anything runs
            type(session)(session.model, session.example, (), ablations, session.layout)
        return {"differs": False, "cut": 0}

    def contradicts(self, other: Ablation) -> str | None:
        """Only one contrast in a run."""
        return "logits have one second stream" if other.acts == "logits" else None

    def stream(self, model: VideoModel, x: Example) -> tuple[Example, list[Ablation]]:
        """What the second stream runs on, and under which ablations."""
        ablations = self.against_what()
        if ablations:
            return x, ablations
        return other_frames(model, x, str(self.against), self.amount, self.seed), []

    def mix(
        self, state: dict, logits: Float[Tensor, " vocab"], second: Float[Tensor, " vocab"]
    ) -> Float[Tensor, " vocab"]:
        """The logits of both streams as those that are read."""
        difference = logits - second
        state["differs"] |= bool(difference.any())
        mixed = logits + self.alpha * difference
        if self.beta > 0:
            implausible = logits < logits.max() + math.log(self.beta)
            state["cut"] += int(implausible.sum())
            mixed = mixed.masked_fill(implausible, float("-inf"))
        return mixed

    def finish(self, session: Session, state: dict) -> None:
        """The second stream differed, or tokens were cut."""
        fired = (state["differs"] and self.alpha != 0) or state["cut"]
        if not fired and not session.force:
            raise ProbeError(
                f"{self}: the second stream has the logits of the first and no token was cut; "
                "the ablation did not fire"
            )


def other_frames(model: VideoModel, x: Example, what: str, amount: int, seed: int) -> Example:
    """The example with other frames, or without any.

    Args:
        model: what encodes.
        x: the example.
        what: one of `FRAMES`.
        amount: diffusion steps of "noise".
        seed: of "noise" and "shuffled".
    """
    from probe.video import perturb

    if what == "noise":
        inputs = dict(x.inputs)
        generator = torch.Generator().manual_seed(seed)
        for name, value in x.inputs.items():
            if name.startswith("pixel_values") and value.is_floating_point():
                inputs[name] = diffused(value, amount, generator)
        return replace(x, inputs=inputs)
    if what == "blank":
        return x.again(model, [perturb.blank(clip) for clip in x.clips])
    if what == "shuffled":
        return x.again(model, [perturb.shuffle(clip, seed) for clip in x.clips])
    return x.again(model, [[] for _ in x.clips])


def diffused(pixels: Tensor, amount: int, generator: torch.Generator) -> Tensor:
    """Normalised pixels after `amount` of 1,000 steps of VCD's noise: sqrt(a) x + sqrt(1 - a) e."""
    ramp = torch.linspace(-6, 6, DIFFUSION, dtype=torch.float64).sigmoid()
    left = torch.cumprod(1 - (ramp * (0.5e-2 - 1e-5) + 1e-5), 0)[amount - 1]
    noise = torch.randn(pixels.shape, generator=generator).to(pixels)
    return left.sqrt().to(pixels) * pixels + (1 - left).sqrt().to(pixels) * noise
