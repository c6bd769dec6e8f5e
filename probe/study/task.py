"""Task: how a sample is asked, and how its answer is scored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import ProbeError
from probe.study.spec_check import hint, known, mapping, strings, whole

if TYPE_CHECKING:
    from probe.ablate.base import Ablation
    from probe.diagnose.case import Case
    from probe.models.video_model import VideoModel
    from probe.study.sample import Sample

KINDS = ("choice", "open", "yesno", "caption")
PROMPTS = {"choice": "{question}\n{options}"}
# "first" scores need one pass, "generated" ones the model's own answer.
LIKELIHOODS = ("margin", "likelihood", "probability", "confidence", "accuracy")
GENERATED = ("letter", "match", "f1", "yesno")
SCORES = (*LIKELIHOODS, *GENERATED)
DEFAULTS = {
    "choice": ("margin", "accuracy"),
    "open": ("margin", "match"),
    "yesno": ("margin", "accuracy"),
    "caption": ("likelihood", "match"),
}
_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Task:
    """What is asked of each sample, and what of the answer is measured.

    Attributes:
        kind: "choice" among a sample's options, "open" short answers, "yesno", "caption".
        prompt: template with {question}, {options} and any column of the sample, such as
            {subtitle}. Where it ends in {options} they are listed as "A. ..." with roles of their
            own, and their letters are the answers; where it has none, the options' texts are.
        scores: of `SCORES`; see `probe.study.score`. Empty: those that fit the kind.
        normalise: log-likelihoods are divided by the number of tokens.
        answers: of "yesno", how yes and no are written.
        max_new_tokens: of scores that let the model answer in its own words.
        system: system prompt.
    """

    kind: Any = "choice"
    prompt: Any = None
    scores: Any = ()
    normalise: Any = False
    answers: Any = ("yes", "no")
    max_new_tokens: Any = 32
    system: Any = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ProbeError(f'task: kind: "{self.kind}" is none; {hint(str(self.kind), KINDS)}')
        put = object.__setattr__
        put(self, "prompt", self.prompt or PROMPTS.get(self.kind, "{question}"))
        scores = strings(self.scores, "task: scores") or DEFAULTS[self.kind]
        wrong = next((score for score in scores if score not in SCORES), None)
        if wrong is not None:
            raise ProbeError(f'task: scores: "{wrong}" is none; {hint(wrong, SCORES)}')
        put(self, "scores", tuple(dict.fromkeys(scores)))
        put(self, "answers", strings(self.answers, "task: answers"))
        if self.kind == "yesno" and len(self.answers) != 2:
            raise ProbeError("task: answers: write how yes and no are written, such as [Yes, No]")
        if "letter" in self.scores and not self.letters:
            raise ProbeError("task: scores: letter needs {options} in the prompt of a choice")
        if "yesno" in self.scores and self.kind != "yesno":
            raise ProbeError("task: scores: yesno goes with kind: yesno")
        few = {"probability", "confidence", "accuracy"} & set(self.scores)
        if few and self.kind in ("open", "caption"):
            raise ProbeError(f"task: scores: {few.pop()} needs answers to choose from")
        if not isinstance(self.normalise, bool):
            raise ProbeError(f"task: normalise: write true or false, not {self.normalise!r}")
        for name in ("prompt", "system"):
            if not isinstance(getattr(self, name), str | None):
                raise ProbeError(f"task: {name}: write a text, not {getattr(self, name)!r:.60}")
        whole(self.max_new_tokens, "task: max_new_tokens", 1)

    @classmethod
    def from_mapping(cls, data: Any) -> Task:
        """A task from plain data.

        Raises:
            ProbeError: an unknown field or a wrong value.
        """
        data = dict(mapping(data, "task"))
        known(data, [field.name for field in fields(cls)], "task")
        return cls(**data)

    @property
    def letters(self) -> bool:
        """The options are listed, and their letters are the answers."""
        return self.kind == "choice" and "{options}" in str(self.prompt)

    @property
    def setting(self) -> dict[str, Any]:
        """Everything in it that a result depends on, as plain data."""
        return asdict(self) | {"scores": list(self.scores), "answers": list(self.answers)}

    # -- asking ----------------------------------------------------------------------------

    def answers_of(self, sample: Sample) -> tuple[str, ...]:
        """The possible answers, as the model would write them; none for open questions."""
        if self.kind == "choice":
            names = [chr(65 + number) for number in range(len(sample.options))]
            return tuple(names) if self.letters else sample.options
        return self.answers if self.kind == "yesno" else ()

    def gold_of(self, sample: Sample) -> str:
        """The right one of them.

        Raises:
            ProbeError: an answer that is none of them.
        """
        if self.kind == "choice":
            if sample.answer not in sample.options:
                raise ProbeError(f'the answer "{sample.answer:.60}" is none of the options')
            return self.answers_of(sample)[sample.options.index(sample.answer)]
        if self.kind == "yesno":
            said = sample.answer.strip().casefold()
            if said not in ("yes", "no"):
                raise ProbeError(f'the answer "{sample.answer:.60}" is neither yes nor no')
            return self.answers[("yes", "no").index(said)]
        return sample.answer

    def check(self, sample: Sample) -> None:
        """Refuse a sample that this task cannot ask or score.

        Raises:
            ProbeError: what is wrong with it; the reader puts file and row in front.
        """
        if self.kind == "choice":
            if len(sample.options) < 2:
                raise ProbeError(f"{len(sample.options)} options; a choice has at least two")
            if len(sample.options) > 26:
                raise ProbeError(f"{len(sample.options)} options; there are 26 letters")
            twice = next((o for o in sample.options if sample.options.count(o) > 1), None)
            if twice is not None:
                raise ProbeError(f'the option "{twice:.60}" is there twice')
        if not sample.answer.strip():
            raise ProbeError("the answer is empty")
        if not sample.question.strip():
            raise ProbeError("the question is empty")
        self.gold_of(sample)
        self.text_of(sample)

    def text_of(self, sample: Sample) -> tuple[str, tuple[str, ...]]:
        """The question as it is asked, and the options that are listed behind it.

        Raises:
            ProbeError: a place of the template that the sample has nothing for.
        """
        listed = [f"{chr(65 + n)}. {option}" for n, option in enumerate(sample.options)]
        values = {**sample.texts, **sample.meta, "question": sample.question}
        values |= {"options": "\n".join(listed), "answer": None}
        template = str(self.prompt).rstrip()
        behind = self.letters and template.endswith("{options}")
        if behind:
            template = template.removesuffix("{options}").rstrip()

        def fill(match: re.Match[str]) -> str:
            value = values.get(match[1])
            if value is None:
                raise ProbeError(f"the prompt has {match[0]}, and the sample has no such column")
            return str(value)

        return _PLACE.sub(fill, template), sample.options if behind else ()

    def case(self, model: VideoModel, sample: Sample, frames: int = 16, seed: int = 0) -> Case:
        """A sample as a case: encoded, with what is known about its answer.

        Args:
            model: the model.
            sample: the sample.
            frames: how many its clip is shown with.
            seed: of everything random in diagnoses.

        Raises:
            ProbeError: a clip that cannot be read, or what `encode` refuses.
        """
        from probe.diagnose.case import Case

        text, listed = self.text_of(sample)
        shown, truth = _shown(sample, frames)
        times = None if sample.span is None else np.linspace(*sample.span, frames)
        x = model.encode(
            shown, text, options=listed or None, frames=frames, times=times, system=self.system
        )
        meta = dict(sample.meta) | ({} if listed else {"options": sample.options})
        return Case(
            model,
            x,
            self.gold_of(sample),
            self.answers_of(sample),
            id=sample.id,
            video=sample.cluster,
            seed=seed,
            truth=truth,
            meta=meta,
        )

    # -- scoring ---------------------------------------------------------------------------

    def score(
        self, case: Case, lists: Sequence[Sequence[Ablation]]
    ) -> list[dict[str, float] | ProbeError]:
        """Scores of each list of ablations ([] is the untouched run).

        Args:
            case: from `case`.
            lists: what is taken away in each run.

        Returns:
            In the order of `lists`: numbers by name, "tokens" (visual tokens per layer, on average
            over layers) among them; or the error of one that cannot be run.
        """
        from probe.study.score import scores

        return scores(self, case, lists)


def _shown(sample: Sample, frames: int) -> tuple[Any, Any]:
    """What is shown to the model, and the whole truth where it is known."""
    from probe.testbed import Item

    if isinstance(sample.video, Item):
        from probe.diagnose.items import clip_of

        return clip_of(sample.video, frames), sample.video
    if isinstance(sample.video, bytes):
        return _picture(sample.video), None
    return sample.video, None


def _picture(data: bytes) -> Any:
    import io

    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, UnidentifiedImageError):
        raise ProbeError("the image in the row cannot be read") from None
