"""Signals of pairs of runs: the same answer under the clip and under a counterfactual one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float

from probe.diagnose import counterfactual
from probe.diagnose.margin import log_softmax
from probe.diagnose.signals.base import Scores, Signal
from probe.diagnose.signals.likelihood import rivals
from probe.diagnose.signals.text_alone import TextEmbeddings, cut_logits

if TYPE_CHECKING:
    from probe.capture.base import Capture
    from probe.diagnose.signals.answer import Answer
    from probe.models.encode import Example
    from probe.video import Clip

CLIPS = ("none", "cut", "mean", *counterfactual.KINDS)
ORDERED = ("shuffled", "reversed")


@dataclass(frozen=True)
class Paired(Signal):
    """Dependence of each token on the clip: two teacher-forced passes over the same answer.

    For each counterfactual clip v': pdm_<v'>, the Hellinger distance of the two next-token
    distributions, 0 to 1 (prompt dependency measure, 2403.14003, whose unconditional side hides
    the visual tokens: "cut"); pmi_<v'> = log p(y|v) - log p(y|v'), which sums to the sequence's
    log-likelihood ratio; contrast_<v'> (ours; what visual contrastive decoding, 2311.16922, adds
    to a logit): pmi of the token less that of its best rival under v.

    Clips: "none" (a prompt without one), "cut" (its tokens hidden from all others, positions as
    they are), "mean" (the mean frame at every time), "frozen" (the middle one), "shuffled",
    "reversed", "wrong" (another video), and the others of `counterfactual.KINDS`. pdm_none is the
    token's total dependence, pdm_shuffled that on order, pdm_frozen that on anything but one frame.
    NaN where a family cannot do without a clip, or a clip of one frame has one order.

    Costs a prefill a clip; "cut" and "none" run the text alone.

    Attributes:
        clips: which.
    """

    clips: Sequence[str] = ("none", "mean", "frozen", "shuffled", "reversed", "wrong")

    signs: ClassVar[Mapping[str, str]] = {"pdm": "H-", "pmi": "H-", "contrast": "H-"}
    source: ClassVar[str] = "PDM: arXiv 2403.14003; contrast: ours, after arXiv 2311.16922"

    def reads(self, answer: Answer) -> Sequence[Capture]:
        """What "cut" needs."""
        return [TextEmbeddings()] if "cut" in self.clips else []

    def scores(self, answer: Answer) -> Scores:
        """Of each token and clip."""
        rows, rival = np.arange(len(answer.scored)), rivals(answer)[0]
        found: dict[str, np.ndarray] = {}
        for clip in self.clips:
            other = answer.under(clip)
            if other is None:
                for name in self.signs:
                    found[f"{name}_{clip}"] = np.full(len(rows), np.nan)
                continue
            gain = answer.log_p - other
            pmi = gain[rows, answer.targets]
            found[f"pdm_{clip}"] = hellinger(answer.log_p, other)
            found[f"pmi_{clip}"] = pmi
            found[f"contrast_{clip}"] = pmi - gain[rows, rival]
        return found


@dataclass(frozen=True)
class VideoInfluence(Signal):
    """KL(as is || clip cut off) of the next-token distribution, in nats; see `influence`. Ours.

    Costs one pass over the text.
    """

    signs: ClassVar[Mapping[str, str]] = {"influence": "H-"}

    def reads(self, answer: Answer) -> Sequence[Capture]:
        """What the text alone starts from."""
        return [TextEmbeddings()]

    def scores(self, answer: Answer) -> Scores:
        """Of each token."""
        cut = answer.under("cut")
        assert cut is not None
        p = np.exp(answer.log_p)
        return {"influence": np.maximum((p * (answer.log_p - cut)).sum(-1), 0)}


def hellinger(
    log_p: Float[np.ndarray, "*row vocab"], log_q: Float[np.ndarray, "*row vocab"]
) -> Float[np.ndarray, "*row"]:
    """sqrt(1/2 sum (sqrt p - sqrt q)^2): 0 where equal, 1 where disjoint."""
    return np.sqrt(np.square(np.exp(log_p / 2) - np.exp(log_q / 2)).sum(-1) / 2)


def log_p(answer: Answer, clip: str) -> Float[np.ndarray, "token vocab"] | None:
    """Log-probabilities of an answer's scored tokens under a counterfactual clip; None where the
    case cannot have it.

    Raises:
        ProbeError: an unknown clip.
    """
    case, model = answer.case, answer.case.model
    if clip == "cut":
        return log_softmax(cut_logits(answer))
    if clip == "none" and model.family.needs_clip:
        return None
    if clip in ORDERED and all(len(shown) < 2 for shown in case.x.clips):
        return None
    if clip in counterfactual.KINDS and answer.scored.tolist() == [0]:
        return log_softmax(counterfactual.seen(case, clip).logits)  # other diagnoses share it
    forced = model.force(_showing(answer, clip), answer.ids[: answer.scored[-1] + 1])
    return log_softmax(model.run(forced).logits[answer.scored])


def _showing(answer: Answer, clip: str) -> Example:
    case = answer.case
    if clip == "none":
        return case.x.again(case.model, [[] for _ in case.x.clips])
    if clip == "mean":
        return case.x.again(case.model, [mean_frame(shown) for shown in case.x.clips])
    return counterfactual.showing(case, clip)


def mean_frame(clip: Clip) -> Clip:
    """The mean of all frames at every time."""
    frame = np.rint(clip.frames.mean(0, dtype=np.float64)).astype(np.uint8)
    return replace(clip, frames=np.repeat(frame[None], len(clip), 0))
