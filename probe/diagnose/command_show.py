"""How `probe diagnose` shows what it found."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from probe.diagnose.base import Diagnosis
    from probe.diagnose.case import Case

POOL = ("number", "value", "95 % interval", "n", "videos")


@dataclass(frozen=True)
class Pooled:
    """What one diagnosis says about many cases.

    Attributes:
        diagnosis: which.
        table: its `pool`; empty where no case could be measured.
        arrays: of each array the mean, low, high and n.
        cases: how many were measured.
        refused: why others were not, and how many.
    """

    diagnosis: Diagnosis
    table: pd.DataFrame
    arrays: Mapping[str, xr.Dataset]
    cases: int
    refused: Mapping[str, int]


def pooled(
    rows: Mapping[Diagnosis, list[tuple[Case, dict[str, Any]]]],
    refused: Mapping[Diagnosis, list[str]],
) -> list[Pooled]:
    """`pool` of each diagnosis over its cases, and the means of its arrays."""
    import pandas as pd

    from probe.diagnose.pool import COLUMNS
    from probe.study.show_arrays import mean_array

    found = []
    for one, cases in rows.items():
        flat, arrays = [], {}
        for case, values in cases:
            floats = {k: float(v) for k, v in values.items() if not hasattr(v, "dims")}
            flat.append({**case.meta, "sample": case.id, "video": case.video} | floats)
            for name in values.keys() - floats.keys():
                arrays.setdefault(name, []).append((values[name], case.video))
        table, why = pd.DataFrame(columns=list(COLUMNS)), Counter(refused.get(one, ()))
        try:
            if flat and len(flat[0]) > 2 + len(cases[0][0].meta):
                made: Any = one.pool(pd.DataFrame(flat))
                table = made[~made["name"].isin(cases[0][0].meta)]
        except ProbeError as error:  # too few cases of a class, for example
            why[f"pooled: {error}"] += 1
        means = {}
        for name in sorted(arrays):
            try:
                means[name] = mean_array(*map(list, zip(*arrays[name], strict=True)))
            except ProbeError as error:
                why[f"{name}: {error}"] += 1
        found.append(Pooled(one, table, means, len(cases), dict(why)))
    return found


def show_one(found: Mapping[Diagnosis, dict[str, Any]], left_out: Mapping[Diagnosis, str]) -> None:
    """Print the numbers of one case."""
    from probe.study.show_arrays import lines

    for one, values in found.items():
        print(f"\n{one}{source(one)}")
        width = max(map(len, values), default=0)
        for name, value in values.items():
            if not hasattr(value, "dims"):
                print(f"  {name.ljust(width)}  {number(float(value))}")
        for name, value in values.items():
            if hasattr(value, "dims"):
                about = value.attrs.get("description", "")
                print(f"  {name}{': ' if about else ''}{about}")
                for line in lines(value):
                    print(f"    {line}")
    _left_out(left_out.values())


def one_as_json(
    found: Mapping[Diagnosis, dict[str, Any]], left_out: Mapping[Diagnosis, str]
) -> dict[str, Any]:
    """The same for machines; numbers that are not finite become None."""
    from probe.study.show_arrays import plain

    rows = []
    for one, values in found.items():
        floats = {k: finite(float(v)) for k, v in values.items() if not hasattr(v, "dims")}
        arrays = {k: plain(v) for k, v in values.items() if hasattr(v, "dims")}
        rows.append(_about(one) | {"values": floats, "arrays": arrays})
    return {"diagnoses": rows, "left_out": {str(one): why for one, why in left_out.items()}}


def show_many(results: list[Pooled], count: int) -> None:
    """Print the pooled tables."""
    from probe.listing import table
    from probe.study.show_arrays import lines

    for one in results:
        title = f"{one.diagnosis}{source(one.diagnosis)}; {one.cases} of {count} items"
        print(f"\n{title}")
        cells = [
            (
                str(row["name"]),
                number(row["value"]),
                interval(row["low"], row["high"]),
                str(row["n"]),
                str(row["clusters"]),
            )
            for row in one.table.to_dict("records")
        ]
        if cells:
            table("", POOL, cells, heads=True)
        for name, array in one.arrays.items():
            print(f"{name}: mean of {int(array['n'].max())}")
            for line in lines(array["mean"]):
                print(f"  {line}")
        _left_out(f"{why} ({times} x)" for why, times in one.refused.items())


def many_as_json(results: list[Pooled]) -> dict[str, Any]:
    """The same for machines."""
    import json

    from probe.study.show_arrays import plain

    rows = []
    for one in results:
        found: dict[str, Any] = _about(one.diagnosis) | {"cases": one.cases}
        found["pool"] = json.loads(str(one.table.to_json(orient="records")))
        found["arrays"] = {
            name: {part: plain(array[part]) for part in ("mean", "low", "high", "n")}
            for name, array in one.arrays.items()
        }
        rows.append(found | {"refused": dict(one.refused)})
    return {"diagnoses": rows}


def source(one: Diagnosis) -> str:
    """The paper, in brackets."""
    return f"  ({one.source})" if one.source else ""


def number(value: float) -> str:
    """A number, or a dash where it is undefined."""
    return f"{value:.4g}" if math.isfinite(value) else "-"


def interval(low: float, high: float) -> str:
    """`[0.64, 0.77]`, or nothing."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{low:.3g}, {high:.3g}]"


def finite(value: float) -> float | None:
    """For JSON."""
    return value if math.isfinite(value) else None


def _about(one: Diagnosis) -> dict[str, Any]:
    return {
        "diagnosis": str(one),
        "spec": one.to_json(),
        "section": one.section,
        "source": one.source,
    }


def _left_out(reasons: Any) -> None:
    for why in reasons:
        print(f"  left out: {why}")
