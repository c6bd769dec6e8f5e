"""LinguisticBias: how much of the answer the question alone decides, and what the clip adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.ablate.knockout import Knockout
from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.counterfactual import seen
from probe.diagnose.margin import log_softmax
from probe.diagnose.pool_rows import append, ratio
from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd

    from probe.diagnose.case import Case
    from probe.engine.result import Run

WITHOUT = ("none", "blank", "cut")


@dataclass(frozen=True)
class LinguisticBias(Diagnosis):
    """Bias share and information gain: P(A|V,Q) against P(A|Q) and P(A|V).

    Probabilities are those of the possible answers among each other, by first tokens; of the
    whole vocabulary where no answers are given. Values: `log_p`, `log_p_question`, `log_p_video`
    (nats, of the right answer with everything, without the clip, without the question),
    `gain` = log_p - log_p_question, what the clip adds, and `gain_question` = log_p - log_p_video;
    `wrong`, `like_blind` (the answer is the one without the clip), and, among wrong answers,
    `biased` (the two together) with `chance`, what an answer that is wrong at random would get.

    Pooled: the means; `bias_share`, the share of wrong answers that are the one the question alone
    gives; `bias_chance` and `bias_above_chance`, their difference. Above chance, wrong answers
    come from the language.

    Bias share and gain are the quantities that Flipped-VQA (Ko et al. 2023, arXiv 2310.15747)
    speaks of as linguistic bias; the two formulas, and chance, are ours.

    Without the question its tokens stay, but no other token reads them: templates have no place
    for an empty one. Without the clip: see `without`. Costs a short forward pass and a resumed one.

    Attributes:
        without: "none": the prompt without a clip. "blank": a grey clip. "cut": the clip's tokens
            stay, and no other token reads them. The last two for a family that needs a clip.

    Raises:
        ProbeError: another word, or "none" for a family that cannot do without a clip.
    """

    without: str = "none"

    section: ClassVar[str] = "hallucination"
    source: ClassVar[str] = "after Flipped-VQA (arXiv 2310.15747)"
    needs: ClassVar[tuple[str, ...]] = ("clip", "gold")

    def measure(self, case: Case) -> Values:
        """The probabilities of one case."""
        if self.without not in WITHOUT:
            raise ProbeError(
                f'linguistic_bias: without="{self.without}"; there are {", ".join(WITHOUT)}'
            )
        cuts = ["question -> all - question", "video -> all - video"]
        rows: list[np.ndarray] = []

        def keep(run: Run) -> float:
            rows.append(log_probabilities(case, run))
            return 0.0

        case.sweep([Knockout(cut) for cut in cuts[: 1 + (self.without == "cut")]], keep)
        full, video = rows[:2]
        question = rows[2] if self.without == "cut" else self.blind(case)
        gold = case.answers.index(case.gold) if case.answers else case.margin.target_id
        own, prior, count = int(full.argmax()), int(question.argmax()), len(full)
        wrong = own != gold
        return {
            "log_p": float(full[gold]),
            "log_p_question": float(question[gold]),
            "log_p_video": float(video[gold]),
            "gain": float(full[gold] - question[gold]),
            "gain_question": float(full[gold] - video[gold]),
            "wrong": float(wrong),
            "like_blind": float(own == prior),
            "biased": float(own == prior) if wrong else float("nan"),
            "chance": (prior != gold) / (count - 1) if wrong else float("nan"),
        }

    def blind(self, case: Case) -> np.ndarray:
        """Log-probabilities without the clip."""
        run = seen(case, "blank") if self.without == "blank" else case.blind
        if run is None:
            raise ProbeError(
                f"linguistic_bias: {case.model.family.title} cannot do without a clip; "
                'use without="blank" or without="cut"'
            )
        return log_probabilities(case, run)

    def pool(self, table: pd.DataFrame) -> pd.DataFrame:
        """Means, and the bias share against chance."""
        one = np.ones(len(table))
        shares = {
            "bias_share": table["biased"],
            "bias_chance": table["chance"],
            "bias_above_chance": table["biased"] - table["chance"],
        }
        rows = [ratio(name, table, value, one) for name, value in shares.items()]
        means = super().pool(table.drop(columns=["biased", "chance"]))
        return append(means, rows)


def log_probabilities(case: Case, run: Run) -> np.ndarray:
    """Log-probability of each answer among the answers, or of each token where there are none.

    Raises:
        ProbeError: a wrong answer that begins like the right one.
    """
    row = run.logits[0]
    return log_softmax(row[[case.firsts[a] for a in case.answers]] if case.answers else row)
