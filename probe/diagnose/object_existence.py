"""ObjectExistence: is an object that is not there affirmed? POPE on video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from probe.diagnose.base import Diagnosis, Values
from probe.diagnose.object_questions import NEGATIVES, SHARED
from probe.diagnose.pool_rows import append
from probe.diagnose.yes_no import lenient, yes_no_rows
from probe.errors import ProbeError
from probe.study.score_text import says_yes

if TYPE_CHECKING:
    import pandas as pd

    from probe.diagnose.case import Case

PARSERS = ("lenient", "strict", "likelier")


@dataclass(frozen=True)
class ObjectExistence(Diagnosis):
    """Yes/no questions about objects, with three readings of the answer.

    Values: `truth` (1 for yes); `said_lenient` and `said_strict`, the model's own words as POPE's
    evaluation reads them and as a reply that must begin with yes or no (NaN where it does not:
    `parsed` is 0); `said_likelier`, the likelier of the two answers' first tokens; and `margin`
    of yes over no in nats.

    Pooled, for each set of negatives in the column "negatives" and each reading:
    `<set>_<reading>_accuracy`, precision, recall, f1 (yes is the positive) and yes_rate, in
    percent with bootstrap intervals over videos. Questions in the shared set "positive" count in
    each of random, popular and adversarial. Where there is no such column all are one set, "all".
    Always yes gives 50, 50, 100, 66.7 and 100 on a balanced set.

    POPE is Li et al. 2023, arXiv 2305.10355. The questions come from `object_questions` and, for
    the testbed, from `existence_items`. Costs a generation.

    Attributes:
        max_new_tokens: of the model's own answer.

    Raises:
        ProbeError: answers other than yes and no.
    """

    max_new_tokens: int = 16

    section: ClassVar[str] = "hallucination"
    source: ClassVar[str] = "POPE (arXiv 2305.10355)"
    needs: ClassVar[tuple[str, ...]] = ("clip", "gold", "answers")

    def measure(self, case: Case) -> Values:
        """What one question is answered."""
        named = {text.strip().casefold(): text for text in case.answers}
        if set(named) != {"yes", "no"}:
            raise ProbeError('object_existence: the answers are "yes" and "no"')
        run = case.model.generate(case.x, max_new_tokens=self.max_new_tokens)
        said = says_yes(run.text or "")
        row = case.run.logits[0]
        ahead = float(row[case.first(named["yes"])] - row[case.first(named["no"])])
        return {
            "truth": float(case.gold == named["yes"]),
            "said_lenient": float(lenient(run.text or "")),
            "said_strict": float("nan") if said is None else float(said),
            "said_likelier": float(ahead > 0),
            "parsed": float(said is not None),
            "margin": ahead,
        }

    def pool(self, table: pd.DataFrame) -> pd.DataFrame:
        """Means, and the scores of each set and reading."""
        rows = []
        for name, some in sets(table).items():
            for parser in PARSERS:
                said = some[f"said_{parser}"]
                rows += yes_no_rows(f"{name}_{parser}_", some, said, some["truth"])
        return append(super().pool(table), rows)


def sets(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each set of negatives."""
    if "negatives" not in table:
        return {"all": table}
    kinds = table["negatives"].astype(str)
    found = {}
    for name in dict.fromkeys(kinds[kinds != SHARED]):
        mine = [name, SHARED] if name in NEGATIVES else [name]
        found[name] = table[np.isin(kinds, mine)]
    return found or {"all": table}
