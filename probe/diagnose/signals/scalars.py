"""HallucinationSignals: every cheap signal of the model's own answer, in one diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.pool_rows import frame, ranking
from probe.diagnose.signals.answer import Answer, given, own
from probe.diagnose.signals.attended import PAS, SVAR, VisualMassNoSinks
from probe.diagnose.signals.base import Signal, risk
from probe.diagnose.signals.contributed import VideoContribution
from probe.diagnose.signals.lensed import AttendedSupport, InternalConfidence
from probe.diagnose.signals.likelihood import NLL, Entropy, OptionMargin, TokenIndex, TokenMargin
from probe.diagnose.signals.paired import Paired, VideoInfluence
from probe.diagnose.signals.similar import CGC, GLSim
from probe.diagnose.signals.supported import labels, token_labels

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from probe.diagnose.case import Case

CLIPS = ("none", "cut", "mean", "shuffled")


def cheap(clips: Sequence[str] = CLIPS) -> tuple[Signal, ...]:
    """The signals of `HallucinationSignals`, controls first."""
    return (
        TokenIndex(), NLL(), Entropy(), TokenMargin(), OptionMargin(),
        Paired(tuple(clips)), VideoInfluence(), VideoContribution(),
        PAS(), SVAR(), VisualMassNoSinks(), AttendedSupport(), GLSim(), CGC(),
        InternalConfidence(),
    )  # fmt: skip


@dataclass(frozen=True)
class HallucinationSignals(Diagnosis):
    """Signals that should tell a made-up answer from one that the clip supports.

    The answer is the model's own greedy one, teacher-forced. Values: the mean over its content
    words of each score of each signal in `cheap` (see their classes for definitions, papers and
    signs); right, hidden, hallucinated where the truth is known (see `labels`); length, the number
    of tokens. Arrays: tokens [score, token], the same by token, and made_up [token], their labels,
    with the texts of the tokens as their labels.

    Costs a forward pass with captures, one for each of `clips` beside "none" and "cut" (whose
    passes have the text alone), and where the answer is not `gold` a generation and another pass.

    Pooled: AUROC of each score for hallucinated answers by its sign, where the truth is known and
    both kinds are there; the means otherwise.

    Attributes:
        clips: counterfactual clips, see `Paired`.
        answer: "own", "gold", or another text to score in their place.
        tokens: give the arrays too.
    """

    clips: Sequence[str] = CLIPS
    answer: str = "own"
    tokens: bool = True

    section: ClassVar[str] = "hallucination"
    needs: ClassVar[tuple[str, ...]] = ("clip",)

    def measure(self, case: Case) -> Values:
        """The scores of one case; NaN for an empty answer."""
        signals = cheap(self.clips)

        def reads(answer: Answer) -> list:
            return [capture for signal in signals for capture in signal.reads(answer)]

        if self.answer == "own":
            answer = own(case, reads)
        else:
            answer = given(case, case.gold or "" if self.answer == "gold" else self.answer)
            answer.read(reads(answer))
        values: dict = {**labels(answer), "length": float(len(answer.scored))}
        if not len(answer.scored):
            return values
        by_token = {}
        for signal in signals:
            values |= signal.summary(answer)
            by_token |= signal.scores(answer)
        return values | (_arrays(answer, by_token) if self.tokens else {})

    def pool(self, table: pd.DataFrame) -> pd.DataFrame:
        """AUROC of each score."""
        truth = table["hallucinated"].to_numpy(float)
        rows = []
        for name, sign in signs(self.clips).items():
            if not sign or name not in table:
                continue
            values = table[name].to_numpy(float)
            kept = ~(np.isnan(values) | np.isnan(truth))
            if len(set(truth[kept])) < 2:
                continue
            rows.append(ranking(f"auroc_{name}", table, risk(sign) * values, truth))
        return frame(rows) if rows else super().pool(table)


def signs(clips: Sequence[str] = CLIPS) -> dict[str, str]:
    """Sign of every score by its name."""
    found: dict[str, str] = {}
    for signal in cheap(clips):
        if isinstance(signal, Paired):
            names = [f"{stem}_{clip}" for clip in clips for stem in signal.signs]
        else:
            names = list(signal.signs)
        found |= {name: signal.sign_of(name) for name in names if name != "mass_self"}
    return found


def _arrays(answer: Answer, by_token: dict[str, np.ndarray]) -> dict[str, xr.DataArray]:
    import xarray as xr

    coords = {"token": list(answer.tokens)}
    about = {"units": "", "description": "signals of each token of the answer"}
    scores = xr.DataArray(
        np.stack(list(by_token.values())).astype(np.float32),
        dims=["score", "token"],
        coords={"score": list(by_token), **coords},
        attrs=about,
    )
    told = {"units": "1", "description": "1 where the clip does not support the token"}
    made_up = xr.DataArray(token_labels(answer), dims=["token"], coords=coords, attrs=told)
    return {"tokens": scores, "made_up": made_up}
