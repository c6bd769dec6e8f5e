"""Check: what one test of a checkpoint found; Report: all of them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

OK, FAILED, SKIPPED = "ok", "failed", "skipped"


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was tested.
        status: "ok", "failed" or "skipped".
        detail: what was found.
        value, limit: the number that was measured and what it may be at most; None without one.
        todo: what to do where it failed or was skipped; None where it is ok.
    """

    name: str
    status: str
    detail: str
    value: float | None = None
    limit: float | None = None
    todo: str | None = None


@dataclass(frozen=True)
class Report:
    """What `doctor` found.

    Attributes:
        model, family: name and family of the checkpoint.
        facts: dtype, device, versions, size of the example.
        checks: one per line, in the order they ran.
    """

    model: str
    family: str
    facts: dict[str, Any] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing failed; a skipped check is no failure."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.status == FAILED)

    def to_frame(self) -> pd.DataFrame:
        """One row per check: check, status, found, value, limit, todo."""
        import pandas as pd

        rows = [asdict(check) for check in self.checks]
        return pd.DataFrame(rows).rename(columns={"name": "check", "detail": "found"})

    def __getitem__(self, name: str) -> Check:
        """The check of this name.

        Raises:
            KeyError: there is none.
        """
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """Plain dict; numbers that are not finite become None."""
        checks = [
            {key: _finite(value) for key, value in asdict(check).items()} for check in self.checks
        ]
        about = {"model": self.model, "family": self.family, **self.facts}
        return about | {"ok": self.ok, "checks": checks}


def ok(name: str, detail: str) -> Check:
    """A check that passed without a number."""
    return Check(name, OK, detail)


def failed(name: str, detail: str, todo: str) -> Check:
    """A check that failed without a number."""
    return Check(name, FAILED, detail, todo=todo)


def skipped(name: str, detail: str, todo: str | None = None) -> Check:
    """A check that does not apply, or cannot be made."""
    return Check(name, SKIPPED, detail, todo=todo)


def measured(name: str, value: float, limit: float, detail: str, todo: str) -> Check:
    """A check of a number: ok up to the limit, failed above it and where it is not a number."""
    if value <= limit:
        return Check(name, OK, detail, float(value), limit)
    return Check(name, FAILED, detail, float(value), limit, todo)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
