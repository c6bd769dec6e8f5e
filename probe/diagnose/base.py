"""What a diagnosis is: a frozen description that makes numbers of a case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Union

from probe.errors import ProbeError
from probe.spec import Spec

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from probe.capture.base import Capture
    from probe.diagnose.case import Case

Values = Mapping[str, Union[float, "xr.DataArray"]]
"""Numbers and small arrays with named dims and labels; NaN where something is undefined."""

SECTIONS = ("redundancy", "hallucination", "time", "importance")


@dataclass(frozen=True)
class Diagnosis(Spec):
    """Base of all diagnoses. Implement `measure`; the rest has defaults.

    A diagnosis is data, as captures and ablations are. It runs on one case (`probe diagnose`,
    `diagnose`) and over thousands (`diagnoses:` of a study) without knowing which.

    Attributes:
        section: what it is about, one of `SECTIONS`.
        source: the paper whose quantity it is; empty for one of our own.
        needs: what a case must have: "clip", "gold", "answers", "truth".
    """

    section: ClassVar[str] = "redundancy"
    source: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ("clip",)

    def reads(self, case: Case) -> Sequence[Capture]:
        """Captures of the untouched run; those of all diagnoses are read in one pass."""
        return ()

    def measure(self, case: Case) -> Values:
        """The numbers of one case."""
        raise NotImplementedError(f"{self.kind} has no measure()")

    def pool(self, table: pd.DataFrame) -> pd.DataFrame:
        """What the numbers of many cases say together.

        Args:
            table: a row a case: sample, video, the sample's further columns, and the numbers of
                `measure` that are no arrays.

        Returns:
            name, value, low, high, n (cases), clusters (videos): the mean of each number by
            default. Override it for ratios, rank correlations, AUROCs.
        """
        from probe.diagnose.pool import means

        return means(table)


def check(diagnosis: Diagnosis, case: Case) -> None:
    """Refuse a case that lacks what a diagnosis needs.

    Raises:
        ProbeError: one line that names it.
    """
    has = {
        "clip": bool(case.x.layout.clips),
        "gold": case.gold is not None,
        "answers": len(case.answers) > 1,
        "truth": case.truth is not None,
    }
    missing = next((need for need in diagnosis.needs if not has[need]), None)
    if missing is not None:
        what = {
            "clip": "a clip",
            "gold": "the right answer (gold=)",
            "answers": "the possible answers (answers=)",
            "truth": "known truth, as testbed items have it",
        }
        raise ProbeError(f"{diagnosis.kind}: needs {what[missing]}")


def diagnose(case: Case, diagnoses: Iterable[Diagnosis]) -> dict[Diagnosis, dict[str, Any]]:
    """Several diagnoses of one case, what they read of the untouched run in one pass.

    Raises:
        ProbeError: a case that lacks what a diagnosis needs, before anything runs; or what a
            diagnosis refuses.
    """
    several = list(diagnoses)
    for one in several:
        check(one, case)
    case.read([capture for one in several for capture in one.reads(case)])
    return {one: dict(one.measure(case)) for one in several}
