"""Holm's correction over a family of tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd


def holm(p: ArrayLike) -> Float[np.ndarray, " test"]:
    """Adjusted p values that keep the chance of any false claim in the family (Holm 1979).

    A test is significant at alpha where its adjusted p is at most alpha; no assumption on how the
    tests depend on one another.

    Args:
        p: of each test of the family [test].

    Raises:
        ProbeError: no tests, or values that are missing or no probabilities.
    """
    values = np.asarray(p, dtype=float).ravel()
    if not len(values):
        raise ProbeError("holm: there are no p values")
    bad = int((~((values >= 0) & (values <= 1))).sum())
    if bad:
        raise ProbeError(f"holm: {bad} of {len(values)} p values are NaN or not between 0 and 1")
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def families(
    table: pd.DataFrame, by: str | Sequence[str] = (), p: str = "p", level: float = 0.95
) -> pd.DataFrame:
    """A table of results with Holm's correction in each family.

    Args:
        table: a row a test; rows without a p (NaN) are in no family.
        by: columns whose values make the families; none: the table is one family, over its layers
            or methods.
        p: the column of p values.
        level: 1 - the chance of any false claim.

    Returns:
        The table with `tests` (in the row's family), `<p>_holm` and `significant`.

    Raises:
        ProbeError: a column that is not there; or as in `holm`.
    """
    columns = [by] if isinstance(by, str) else list(by)
    for name in [*columns, p]:
        if name not in table.columns:
            raise ProbeError(
                f"families: the table has no column {name!r}; it has {', '.join(table.columns)}"
            )
    values = table[p].to_numpy(dtype=float)
    tested = ~np.isnan(values)
    adjusted = np.full(len(values), np.nan)
    tests = np.zeros(len(values), dtype=int)
    if columns:
        family = table.groupby(columns, sort=False, dropna=False).ngroup().to_numpy()
    else:
        family = np.zeros(len(values), dtype=int)
    for number in np.unique(family[tested]):
        rows = tested & (family == number)
        adjusted[rows] = holm(values[rows])
        tests[rows] = rows.sum()
    found = {"tests": tests, f"{p}_holm": adjusted, "significant": adjusted <= 1 - level + 1e-12}
    return table.assign(**found)
