"""BenchmarkValidity: would the item be answered with letters alone, one frame, or no clip?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.counterfactual import enough, seed_of
from probe.diagnose.pool_rows import append, of_sums, part, ratio
from probe.errors import ProbeError
from probe.video import perturb_time

if TYPE_CHECKING:
    import pandas as pd

    from probe.diagnose.case import Case
    from probe.engine.result import Run
    from probe.video import Clip


CHOICES = ("letters", "texts", "bare")


@dataclass(frozen=True)
class BenchmarkValidity(Diagnosis):
    """Multiple choice against open answers, blind and one-frame accuracy, and the frames curve.

    The choice lists the options in the prompt and takes the likeliest (see `choice`); the open
    question has no options in sight, and the model's own words must be the answer, up to case,
    punctuation and articles. Values, of the choice if not said otherwise: `right_choice`;
    `right_open`,
    `gap` = their difference; `right_blind` (no clip; NaN where a family cannot do without),
    `right_frame` (one random frame alone); `right_<n>` and `margin_<n>` (nats) for n frames,
    evenly over the clip; `margin_slope`, of the margin by log2 of the frames, all of them
    included; `chance`, one over the number of options.

    Pooled: the means, so that chance stands beside blind; `frame_share` = accuracy with one random
    frame over that with all, and the same above chance, `frame_share_above_chance`.

    After VideoEval-Pro (Ma et al. 2025), whose open answers a judge model reads, and RTV-Bench
    (arXiv 2505.02064). Costs a generation and a forward pass for each of the
    choice, one frame, none, and each number of frames.

    Attributes:
        frames: numbers of frames below the clip's own.
        choice: "letters": the options are listed and the likeliest letter is the answer. "texts":
            listed, and the likeliest first token of their texts, for models that answer in words.
            "bare": the same with no options in sight.
        max_new_tokens: of the open answer.

    Raises:
        ProbeError: no options, another choice, or a number of frames below 1.
    """

    frames: Sequence[int] = (1, 2, 4, 8)
    choice: str = "letters"
    max_new_tokens: int = 32

    section: ClassVar[str] = "hallucination"
    source: ClassVar[str] = "after VideoEval-Pro (2025)"
    needs: ClassVar[tuple[str, ...]] = ("clip", "gold", "answers")

    def measure(self, case: Case) -> Values:
        """The answers of one case."""
        from probe.study.score_text import normalised

        if self.choice not in CHOICES:
            raise ProbeError(
                f'benchmark_validity: choice="{self.choice}"; there are {", ".join(CHOICES)}'
            )
        if any(count < 1 for count in self.frames):
            raise ProbeError("benchmark_validity: a clip has at least 1 frame")
        options, gold = choices(case)
        clips = list(case.x.clips)
        full = self.margin(case, clips)
        said = case.model.generate(
            case.model.encode(clips, case.x.question, frames=None),
            max_new_tokens=self.max_new_tokens,
        )
        same = normalised(said.text or "") == normalised(options[gold])
        draw = np.random.default_rng(seed_of(case))
        one = [enough(case, perturb_time.single(c, int(draw.integers(len(c))))) for c in clips]
        blind = float("nan") if case.model.family.needs_clip else self.margin(case, [])
        frame = self.margin(case, one)
        found = {
            "right_choice": float(full > 0),
            "right_open": float(same),
            "gap": float(full > 0) - float(same),
            "right_blind": float(blind > 0) if blind == blind else float("nan"),
            "right_frame": float(frame > 0),
            "chance": 1 / len(options),
            "margin": full,
        }
        curve = {len(clips[0]): full}
        for count in sorted({n for n in self.frames if n < len(clips[0])}):
            shown = [enough(case, perturb_time.resample(c, min(count, len(c)))) for c in clips]
            curve[count] = found[f"margin_{count}"] = self.margin(case, shown)
            found[f"right_{count}"] = float(curve[count] > 0)
        found["margin_slope"] = slope(curve)
        return found

    def margin(self, case: Case, clips: Sequence[Clip]) -> float:
        """Nats by which the right option is ahead of the best other one, over other clips."""
        options, gold = choices(case)
        shown = None if self.choice == "bare" else options
        x = case.model.encode(list(clips) or None, case.x.question, options=shown, frames=None)
        letters = [chr(65 + number) for number in range(len(options))]
        names = letters if self.choice == "letters" else options
        return ahead(case, case.model.run(x), names, gold)

    def pool(self, table: pd.DataFrame) -> pd.DataFrame:
        """Means, and what one frame is worth."""
        columns = {name: table[name] for name in ("right_frame", "right_choice", "chance")}

        def above(frame: np.ndarray, full: np.ndarray, chance: np.ndarray) -> np.ndarray:
            return part(frame - chance, full - chance)

        rows = [
            ratio("frame_share", table, table["right_frame"], table["right_choice"]),
            of_sums("frame_share_above_chance", table, columns, above),
        ]
        return append(super().pool(table), rows)


def choices(case: Case) -> tuple[list[str], int]:
    """The options of a case as texts, and the number of the right one."""
    if case.gold is None:
        raise ProbeError("benchmark_validity: needs the right answer (gold=)")
    number = list(case.answers).index(case.gold)
    return list(case.x.options or case.answers), number


def ahead(case: Case, run: Run, names: Sequence[str], gold: int) -> float:
    """Margin of one name over the others, by first tokens.

    Raises:
        ProbeError: two that begin alike.
    """
    tokens = [case.first(name) for name in names]
    if len(set(tokens)) < len(tokens):
        raise ProbeError("benchmark_validity: two answers begin with the same token")
    row = run.logits[0]
    return float(row[tokens[gold]] - max(row[t] for t in tokens if t != tokens[gold]))


def slope(curve: dict[int, float]) -> float:
    """Least-squares slope of a margin by log2 of the frames; NaN with one number of frames."""
    if len(curve) < 2:
        return float("nan")
    x = np.log2(np.array(list(curve), dtype=float))
    away = x - x.mean()
    return float(away @ np.array(list(curve.values())) / (away @ away))
