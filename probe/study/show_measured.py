"""What captures and diagnoses of a study say over its samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import ProbeError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from probe.study.cell import Cell
    from probe.study.show import Names


def measured(
    table: pd.DataFrame, names: Names, role: str, cells: Mapping[str, Cell]
) -> tuple[pd.DataFrame, list[str]]:
    """Numbers of captures (means) or diagnoses (their `pool`), a row each.

    Args:
        table: as `Store.table()` gives it.
        names: which columns are of the samples, and which each label measures.
        role: "capture" or "diagnosis".
        cells: of the study, by label; without one a diagnosis is pooled by its means.

    Returns:
        model, label, name, value, low, high, n, clusters; and notes on what could not be pooled.
    """
    import pandas as pd

    from probe.diagnose.pool import COLUMNS, means

    found, notes = [], []
    of_role: Any = table[table["role"] == role]
    for key, rows in of_role.groupby(["model", "label"], sort=False):
        model, label = map(str, key)
        values = [name for name in names.values.get(label, ()) if name in rows]
        numbers = rows[~_failed(rows)]
        if not values or not len(numbers):
            continue
        meta = [name for name in names.meta if name in rows and name not in values]
        numbers = numbers[["sample", "video", *meta, *values]].reset_index(drop=True)
        numbers = numbers.astype({v: float for v in values if numbers[v].isna().all()})
        pool: Any = cells[label].diagnosis.pool if role == "diagnosis" and label in cells else means
        try:
            made = pool(numbers)
        except ProbeError as error:  # too few samples of a class, for example
            notes.append(f"{label}: not pooled: {error}")
            made = means(numbers)
        made = made[~made["name"].isin([*meta, "seed"])]
        found.append(made.assign(model=model, label=label))
    columns = ["model", "label", *COLUMNS]
    if not found:
        return pd.DataFrame(columns=columns), notes
    return pd.concat(found, ignore_index=True).reindex(columns=columns), notes


def array_means(
    arrays: Mapping[str, Mapping[str, xr.DataArray]],
) -> tuple[dict[tuple[str, str, str], xr.Dataset], list[str]]:
    """Mean arrays with intervals, by model, label and name; and notes on those without.

    Args:
        arrays: label -> name -> [sample, ...] with coords model and video, as `Store.arrays`.
    """
    from probe.study.show_arrays import mean_of_samples

    found, notes = {}, []
    for label, several in arrays.items():
        for name, array in several.items():
            if array.dtype.kind not in "bif":
                continue
            array = _measured_only(array)
            models = array["model"].values
            for one in dict.fromkeys(models.tolist()):
                rows = array.isel(sample=np.flatnonzero(models == one))
                if not len(rows):
                    notes.append(f"{label}: {name}: there are no arrays of {one}")
                    continue
                found[str(one), label, name] = mean_of_samples(rows, rows["video"].values.tolist())
    return found, notes


def _measured_only(array: xr.DataArray) -> xr.DataArray:
    """Samples that have any value, first."""
    array = array.transpose("sample", ...)
    there = np.isfinite(array.values.astype(float)).reshape(array.sizes["sample"], -1).any(1)
    return array.isel(sample=np.flatnonzero(there))


def _failed(rows: Any) -> Any:
    return rows["error"].notna() & (rows["error"] != "")
