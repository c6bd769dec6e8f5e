"""Scores of single frames: what a selection of frames or a budget per frame goes by."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from probe.errors import ProbeError
from probe.spec import Spec
from probe.video import Clip

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel

Scores = Float64[np.ndarray, " asked"]

SUFFICIENT = (
    "{question}\nDoes the image contain sufficient information to answer the given question?"
)
CONTAINS = "Does the image contain any object of {objects}?"
LETTERS = " A. yes, B. no\nAnswer with the option's letter directly."
NAME_THEM = (
    "Question about a video: {question}\nWhich physical objects does one have to find in the video "
    "to answer it? Write a JSON list of their names and nothing else, for example "
    '["red car", "dog"], or [] if there are none.'
)


@dataclass(frozen=True)
class FrameScorer(Spec):
    """A number for a frame, not below 0; higher is more relevant. Implement `scores`."""

    def scores(self, model: VideoModel, x: Example, clip: Clip, frames: Sequence[int]) -> Scores:
        """Scores of some frames of a clip, in the order asked.

        Args:
            model, x: the model and the example that asks; `x.question` is the question.
            clip: the frames to choose from; need not be a clip of `x`.
            frames: numbers from 0, in `clip`.
        """
        raise NotImplementedError(f"{self.kind} has no scores()")


@dataclass(frozen=True)
class SaysYes(FrameScorer):
    """The model's own probability of "yes" when it sees one frame and is asked whether it helps:
    the scorer of QuoTA (Luo et al. 2025, arXiv:2503.08689), which asks Qwen2-VL-2B.

    The probability is that of the first token of the answer, over the whole vocabulary. A family
    with a fixed number of frames, or one that merges some, is shown the frame that many times.

    Attributes:
        ask: the question, with {question} for that of the example; by default whether the image
            suffices to answer it, or, where objects are given, whether it contains any of them.
        objects: names of objects.
        decouple: let the model name the objects first, from the question alone; where what it
            writes is not a list of names, the default question is asked.
        letters: the choices put behind `ask`, and `yes` the text of the token that means yes.
        against: text of a token that means no; the score is then yes / (yes + no).
    """

    ask: str | None = None
    objects: tuple[str, ...] = ()
    decouple: bool = False
    letters: str = LETTERS
    yes: str = "A"
    against: str | None = None

    def scores(self, model: VideoModel, x: Example, clip: Clip, frames: Sequence[int]) -> Scores:
        question = self._question(model, x)
        yes = _tokens(model, self.yes)
        no = _tokens(model, self.against) if self.against else []
        found = [self._score(model, question, _alone(model, x, clip, n), yes, no) for n in frames]
        return np.asarray(found, dtype=np.float64)

    def _question(self, model: VideoModel, x: Example) -> str:
        objects = self.objects
        if self.decouple and not objects:
            objects = named(model, x.question)
        default = CONTAINS if objects else SUFFICIENT
        text = default if self.ask is None else self.ask
        text = text.replace("{objects}", ", ".join(objects)).replace("{question}", x.question)
        return text + self.letters

    def _score(
        self, model: VideoModel, question: str, shown: Clip, yes: list[int], no: list[int]
    ) -> float:
        logits = model.run(model.encode(shown, question, frames=None)).logits[-1].astype(float)
        p = np.exp(logits - logits.max())
        p /= p.sum()
        sure = float(p[yes].sum())
        return sure / (sure + float(p[no].sum())) if no else sure


@dataclass(frozen=True)
class FrameChange(FrameScorer):
    """Mean absolute difference of a frame's pixels from the frame before; 0 for the first."""

    def scores(self, model: VideoModel, x: Example, clip: Clip, frames: Sequence[int]) -> Scores:
        pixels = clip.frames.astype(np.float32)
        changed = [np.abs(pixels[n] - pixels[max(0, n - 1)]).mean() for n in frames]
        return np.asarray(changed, dtype=np.float64)


@dataclass(frozen=True)
class EqualFrames(FrameScorer):
    """The same score for every frame: the control that chooses evenly."""

    def scores(self, model: VideoModel, x: Example, clip: Clip, frames: Sequence[int]) -> Scores:
        return np.ones(len(frames))


@dataclass(frozen=True)
class ShuffledFrames(FrameScorer):
    """The scores of another scorer, dealt out to other frames: the control with the same values.

    Attributes:
        of: the scorer.
        seed: of the permutation.
    """

    of: FrameScorer = SaysYes()
    seed: int = 0

    def scores(self, model: VideoModel, x: Example, clip: Clip, frames: Sequence[int]) -> Scores:
        dealt = np.random.default_rng(self.seed).permutation(len(clip))
        return self.of.scores(model, x, clip, dealt[list(frames)].tolist())


@dataclass(frozen=True)
class FrameFunction(FrameScorer):
    """A function of one's own, such as the confidence of a detector.

    Attributes:
        name: "module:function"; it is called with a frame, uint8 [height, width, 3] in RGB, and
            the question, and returns a number.
    """

    name: str

    def scores(self, model: VideoModel, x: Example, clip: Clip, frames: Sequence[int]) -> Scores:
        function = self._function()
        return np.asarray([float(function(clip.frames[n], x.question)) for n in frames])

    def _function(self) -> Any:
        module, _, name = self.name.partition(":")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ProbeError(
                f"frame_function: '{self.name}' cannot be imported ({error}); write it as "
                "module:function"
            ) from None
        if not callable(found):
            raise ProbeError(f"frame_function: '{self.name}' is not a function")
        return found


def scored(
    scorer: FrameScorer, model: VideoModel, x: Example, clip: Clip, frames: Sequence[int]
) -> Scores:
    """The scores of a scorer, checked.

    Raises:
        ProbeError: not a scorer; not one finite number, at least 0, for each frame.
    """
    if not isinstance(scorer, FrameScorer):
        raise ProbeError(f"{scorer!r} scores no frames; write SaysYes(), FrameChange(), ...")
    values = np.asarray(scorer.scores(model, x, clip, list(frames)), dtype=np.float64)
    if values.shape != (len(frames),) or not np.isfinite(values).all() or (values < 0).any():
        raise ProbeError(
            f"{scorer}: scores of frames are finite numbers of at least 0, one for each frame"
        )
    return values


def named(model: VideoModel, question: str) -> tuple[str, ...]:
    """Objects that the model says one has to find; none where it says nothing of the kind."""
    if model.family.needs_clip:
        return ()
    x = model.encode(None, NAME_THEM.format(question=question))
    return names_in(model.generate(x, max_new_tokens=64).text or "")


def names_in(text: str) -> tuple[str, ...]:
    """Names from a JSON list of texts, which may stand between other words; nothing is evaluated.

    Whatever is not one list of short plain names gives none.
    """
    start, end = text.find("["), text.rfind("]")
    try:
        found = json.loads(text[start : end + 1]) if 0 <= start < end else []
    except (ValueError, RecursionError):
        return ()
    plain = isinstance(found, list) and all(isinstance(name, str) for name in found)
    names = tuple(" ".join(name.split()) for name in found) if plain else ()
    return names if all(0 < len(name) <= 80 for name in names) else ()


def _tokens(model: VideoModel, text: str) -> list[int]:
    """Tokens that are this text, with or without a space in front."""
    tokenizer = model.tokenizer
    tried = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in (text, f" {text}")]
    single = sorted({ids[0] for ids in tried if len(ids) == 1})
    if not single:
        raise ProbeError(
            f"says_yes: {text!r} is not one token of this model; use letters= and yes= with a text "
            "that is"
        )
    return single


def _alone(model: VideoModel, x: Example, clip: Clip, frame: int) -> Clip:
    """One frame, as often as the family wants frames, or merges them."""
    count = model.family.frames or max(map(len, x.layout.frames), default=1)
    frames = np.repeat(clip.frames[frame][None], count, axis=0)
    return Clip.from_array(frames, seconds=np.arange(count) + float(clip.seconds[frame]))
