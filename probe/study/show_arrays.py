"""Small arrays of many samples: their mean with intervals, and lines that show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

MOST = 400
"""Entries of an array that are given intervals."""
WIDE = 16
"""Values of a row that are printed."""


def mean_array(
    arrays: Sequence[xr.DataArray], videos: Sequence[Any], *, resamples: int = 1_000, seed: int = 0
) -> xr.Dataset:
    """Mean over samples of every entry, with a bootstrap 95 % interval over videos.

    Entries are matched by their labels: where samples differ in length (frames, steps), an entry
    is the mean over those that have it.

    Args:
        arrays: one a sample, with the same dims.
        videos: the video of each sample.
        resamples, seed: of the bootstrap.

    Returns:
        mean, low, high (NaN with one video, or in arrays of more than `MOST` entries), n (samples
        with a value).

    Raises:
        ProbeError: no arrays, or arrays with other dims.
    """
    import xarray as xr

    if not arrays:
        raise ProbeError("mean_array: there are no arrays")
    dims = arrays[0].dims
    other = next((array.dims for array in arrays if array.dims != dims), None)
    if other is not None:
        raise ProbeError(f"mean_array: some have dims {dims}, others {other}: nothing to average")
    labelled = [array.assign_coords(_labels(array)).drop_vars(_further(array)) for array in arrays]
    together = xr.concat(
        xr.align(*labelled, join="outer", copy=False), "sample", coords="minimal", compat="override"
    )
    return mean_of_samples(together.transpose("sample", *dims), videos, resamples, seed)


def mean_of_samples(
    values: xr.DataArray, videos: Sequence[Any], resamples: int = 1_000, seed: int = 0
) -> xr.Dataset:
    """`mean_array` of arrays that are one already, [sample, ...], NaN where a sample has none."""
    import xarray as xr

    dims, shape = values.dims[1:], values.shape[1:]
    flat = np.asarray(values.values, dtype=float).reshape(len(values), -1)
    rows = np.full((4, flat.shape[1]), np.nan)
    for entry in range(flat.shape[1]):
        rows[:, entry] = _entry(flat[:, entry], videos, flat.shape[1] <= MOST, resamples, seed)
    names = ("mean", "low", "high", "n")
    found = {name: (dims, row.reshape(shape)) for name, row in zip(names, rows, strict=True)}
    coords = {dim: values[dim].values for dim in dims}
    return xr.Dataset(found, coords, attrs=dict(values.attrs)).assign(
        n=lambda made: made["n"].astype(int)
    )


def lines(array: xr.DataArray) -> Iterator[str]:
    """An array as text: a row of values for each entry of the dims before the last.

    Long rows and tall arrays are cut, and say so.
    """
    if array.ndim == 0:
        yield _number(float(array))
        return
    last = array.dims[-1]
    labels = _texts(array, last)
    columns = labels[:WIDE] + ["…"] * (len(labels) > WIDE)
    rows = list(np.ndindex(*array.shape[:-1]))
    head = " x ".join(map(str, array.dims[:-1]))
    names = [
        " ".join(_texts(array, d)[i] for d, i in zip(array.dims, r, strict=False)) for r in rows
    ]
    cells = [[_number(v) for v in array.values[r][:WIDE]] for r in rows[:WIDE]]
    cells = [row + ["…"] * (len(labels) > WIDE) for row in cells]
    lead = max(map(len, [f"{head} \\ {last}" if head else str(last), *names[:WIDE]]))
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    title = f"{head} \\ {last}" if head else str(last)
    for name, row in [(title, columns), *zip(names, cells, strict=False)]:
        yield "  ".join([name.ljust(lead), *(c.rjust(w) for c, w in zip(row, widths, strict=True))])
    if len(rows) > WIDE:
        yield f"… {len(rows) - WIDE} more rows"


def plain(array: xr.DataArray) -> dict[str, Any]:
    """An array for JSON; numbers that are not finite become None."""
    values = np.asarray(array.values, dtype=float).astype(object)
    values[~np.isfinite(np.asarray(array.values, dtype=float))] = None
    found: dict[str, Any] = {"dims": list(array.dims), "data": values.tolist()}
    found["coords"] = {str(dim): array[dim].values.tolist() for dim in array.dims}
    return found | {key: str(value) for key, value in array.attrs.items()}


def _entry(
    values: np.ndarray, videos: Sequence[Any], intervals: bool, resamples: int, seed: int
) -> tuple[float, float, float, float]:
    from probe.study.statistics_difference import mean_interval
    from probe.study.statistics_samples import samples

    there = np.isfinite(values)
    kept = values[there]
    mean = float(kept.mean()) if len(kept) else float("nan")
    if not intervals or not len(kept):
        return mean, float("nan"), float("nan"), len(kept)
    clips = [video for video, has in zip(videos, there, strict=True) if has]
    try:
        s = samples("array", clips, values=kept)
        _, low, high = mean_interval("array", s, s.columns[0], 0.95, resamples, seed)
    except ProbeError:  # one video
        low = high = float("nan")
    return mean, low, high, len(kept)


def _labels(array: xr.DataArray) -> dict[Any, Any]:
    return {
        dim: array[dim].values if dim in array.coords else np.arange(array.sizes[dim])
        for dim in array.dims
    }


def _further(array: xr.DataArray) -> list[Any]:
    return [name for name in array.coords if name not in array.dims]


def _texts(array: xr.DataArray, dim: Any) -> list[str]:
    values = array[dim].values if dim in array.coords else range(array.sizes[dim])
    return [f"{v:.3g}" if isinstance(v, float | np.floating) else str(v) for v in values]


def _number(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:.3g}"
