"""The cells of a study, measured on one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

    from probe.diagnose.case import Case
    from probe.study.cell import Cell
    from probe.study.sample import Sample
    from probe.study.spec import Study


@dataclass(frozen=True)
class Measured:
    """What one cell gave on one sample.

    Attributes:
        values: numbers by name; NaN where something is undefined.
        arrays: small arrays by name.
    """

    values: dict[str, float] = field(default_factory=dict)
    arrays: dict[str, xr.DataArray] = field(default_factory=dict)


def measure(
    study: Study, sample: Sample, case: Case, cells: Sequence[Cell]
) -> list[Measured | ProbeError]:
    """Cells of one sample: all ablations in one sweep, all captures and what diagnoses read in one
    pass.

    Args:
        study: the study.
        sample: the sample.
        case: `study.task.case(model, sample, study.frames, study.seed)`.
        cells: any of `study.cells()`.

    Returns:
        In the order of `cells`: what was measured, or the error of a cell that cannot be.

    Raises:
        ProbeError: the sample itself cannot be run, or its answers cannot be scored.
    """
    found: dict[int, Measured | ProbeError] = {}
    ablated = [n for n, cell in enumerate(cells) if cell.ablated]
    if ablated:
        lists = [cells[n].ablations(sample.id) for n in ablated]
        for n, row in zip(ablated, study.task.score(case, lists), strict=True):
            found[n] = row if isinstance(row, ProbeError) else Measured(row)
    others = [n for n in range(len(cells)) if n not in found]
    _read(case, [cells[n] for n in others])
    for n in others:
        try:
            found[n] = _one(cells[n], case)
        except ProbeError as error:
            found[n] = error
    return [found[n] for n in range(len(cells))]


def _read(case: Case, cells: Sequence[Cell]) -> None:
    """What captures and diagnoses read of the untouched run, in one pass where all of it can be."""
    from probe.diagnose.base import check

    wanted: list[Any] = []
    for cell in cells:
        try:
            if cell.role == "capture":
                wanted.append(cell.capture)
            else:
                check(cell.diagnosis, case)
                wanted.extend(cell.diagnosis.reads(case))
        except ProbeError:
            continue  # its own cell will say why
    try:
        case.read(wanted)
    except ProbeError:
        return  # one of them is refused; the others are read one by one


def _one(cell: Cell, case: Case) -> Measured:
    if cell.role == "capture":
        return _sorted({cell.label: cell.reduced(case.of(cell.capture))})
    from probe.diagnose.base import diagnose

    return _sorted(diagnose(case, [cell.diagnosis])[cell.diagnosis])


def _sorted(given: Mapping[str, Any]) -> Measured:
    """Numbers to numbers, arrays to arrays; an array without dims is a number."""
    values, arrays = {}, {}
    for name, value in given.items():
        if np.ndim(value) == 0:
            values[name] = float(value)
        else:
            arrays[name] = value
    return Measured(values, arrays)
