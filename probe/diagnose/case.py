"""Case: one example under diagnosis, with what is known about its right answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.diagnose.margin import Margin, margin
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from jaxtyping import Float, Int

    from probe.capture.base import Capture
    from probe.engine.result import Run
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel


@dataclass(eq=False)
class Case:
    """One example under diagnosis. What several diagnoses need is run once.

    Attributes:
        model, x: the model, and a prompt without an answer.
        gold: the right answer as the model would write it; None: its own first token counts.
        answers: the possible answers, `gold` among them; none: every token is a rival.
        id, video: names of the sample, and of the video that samples share.
        seed: of everything random.
        truth: what is known beyond the answer, such as a testbed `Item`.
        meta: further columns of the sample, such as its type.
    """

    model: VideoModel
    x: Example
    gold: str | None = None
    answers: Sequence[str] = ()
    id: str = "example"
    video: str = "clip"
    seed: int = 0
    truth: Any = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What diagnoses share beyond the untouched run, by a key of theirs."""
    _runs: list[Run] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if self.x.answer is not None:
            raise ProbeError("diagnose: encode the question without an answer")
        if self.gold is not None and not self.gold.strip():
            raise ProbeError("diagnose: the right answer is empty; leave it out if unknown")
        if self.answers and self.gold not in self.answers:
            raise ProbeError(f'diagnose: the right answer "{self.gold}" is not among the answers')

    # -- the untouched run -----------------------------------------------------------------

    @cached_property
    def run(self) -> Run:
        """The untouched run."""
        return self._runs[0] if self._runs else self.model.run(self.x)

    def read(self, captures: Sequence[Capture]) -> None:
        """Read several captures in one untouched run; those that were read before stay."""
        have = [made for run in self._runs for made, _ in run.parts]
        wanted = [capture for capture in dict.fromkeys(captures) if capture not in have]
        if wanted:
            self._runs.append(self.model.run(self.x, wanted))

    def of(self, capture: Capture) -> xr.DataArray:
        """The first array of a capture on the untouched run."""
        self.read([capture])
        return next(
            run.of(capture) for run in self._runs if any(capture == c for c, _ in run.parts)
        )

    @cached_property
    def generated(self) -> Run:
        """The model's own answer, greedy, at most 64 tokens."""
        return self.model.generate(self.x)

    @property
    def video_tokens(self) -> Int[np.ndarray, " token"]:
        """Positions of the clip's tokens.

        Raises:
            ProbeError: the example has no clip.
        """
        return self.x.layout.select("video")

    # -- the answer ------------------------------------------------------------------------

    @cached_property
    def margin(self) -> Margin:
        """The right answer against its best rival in the untouched run, fixed, in logits."""
        return margin(self.model, self.x, self.run, self.gold, self.answers)

    @cached_property
    def rivals(self) -> Int[np.ndarray, " rival"]:
        """First tokens of the wrong answers; every other token where no answers are given.

        Raises:
            ProbeError: a wrong answer that begins like the right one.
        """
        if not self.answers:
            every = np.arange(self.run.logits.shape[-1])
            return every[every != self.margin.target_id]
        return np.array(sorted({t for a, t in self.firsts.items() if a != self.gold}))

    @cached_property
    def firsts(self) -> dict[str, int]:
        """First token of each of the possible answers.

        Raises:
            ProbeError: a wrong answer that begins like the right one, or none that is wrong.
        """
        if set(self.answers) == {self.gold}:
            raise ProbeError(
                f'diagnose: "{self.gold}" is the only possible answer; give wrong ones too, or none'
            )
        found = {answer: self.first(answer) for answer in self.answers}
        for answer, token in found.items():
            if answer != self.gold and token == found[str(self.gold)]:
                raise ProbeError(
                    f'diagnose: "{self.gold}" and "{answer}" begin with the same token; list the '
                    "options in the prompt and let their letters be the answers"
                )
        return found

    def first(self, text: str) -> int:
        """Id of the first token of a text, as it would follow the prompt.

        Raises:
            ProbeError: a text without any token.
        """
        from probe.models.encode import continuation

        ids = continuation(self.model.tokenizer, self.x.prompt, text)
        if not ids:
            raise ProbeError(f'diagnose: the answer "{text}" is empty')
        return ids[0]

    def gold_margin(self, run: Run) -> float:
        """How far the right answer is ahead of the best wrong one, in nats, by first tokens:
        log p(right) - log p(best wrong), whichever that is in this run.
        """
        row = run.logits[0]
        return float(row[self.margin.target_id] - row[self.rivals].max())

    def right(self, run: Run) -> bool:
        """The right answer is ahead of every wrong one."""
        return self.gold_margin(run) > 0

    def probabilities(self, run: Run) -> Float[np.ndarray, " answer"]:
        """Probability of each of the answers among them, by their first tokens, in their order."""
        if not self.answers:
            raise ProbeError("diagnose: this needs the possible answers; give answers=")
        row = run.logits[0, [self.firsts[a] for a in self.answers]].astype(np.float64)
        weights = np.exp(row - row.max())
        return weights / weights.sum()

    # -- other runs ------------------------------------------------------------------------

    def sweep(self, ablations: Sequence[Any], measure: Any = None) -> pd.DataFrame:
        """`model.sweep` of the case; the gold margin by default, untouched run first."""
        return self.model.sweep(self.x, ablations, measure or self.gold_margin)

    @cached_property
    def blind(self) -> Run | None:
        """The run without any clip; None where the family cannot do without."""
        if self.model.family.needs_clip:
            return None
        x = self.model.encode(None, self.x.question, options=self.x.options or None)
        return self.model.run(x)
