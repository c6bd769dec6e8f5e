"""What a session's captures gathered becomes one xarray.Dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session


Part = tuple[Any, dict[str, "xr.DataArray"]]
"""A capture, and its arrays under its own names and labels."""


def finished(session: Session) -> tuple[Part, ...]:
    """What each capture of a session gathered."""
    return tuple((capture, capture.finish(session, state)) for capture, state in session.captures)


def collect(parts: Sequence[Part]) -> xr.Dataset:
    """One Dataset with every capture's arrays.

    Labels along a dim are the union over captures, NaN where a capture has none. A second
    capture of a kind gets the suffix `_2`.

    Args:
        parts: from `finished`.
    """
    import xarray as xr

    arrays: dict[str, xr.DataArray] = {}
    for capture, found in parts:
        for name, array in found.items():
            number = 2
            unique = name
            while unique in arrays:
                unique, number = f"{name}_{number}", number + 1
            arrays[unique] = array.assign_attrs(capture=str(capture)).rename(unique)
    if not arrays:
        return xr.Dataset()
    return xr.Dataset(union(arrays))


def union(arrays: Mapping[Any, xr.DataArray]) -> dict[Any, xr.DataArray]:
    """The arrays with the union of their labels along every dim, NaN (or "") where one has none.

    xarray's own outer join would sort labels: frame 10 before frame 2.
    """
    labels: dict[str, dict] = {}
    for array in arrays.values():
        for dim in array.dims:
            labels.setdefault(str(dim), {}).update(dict.fromkeys(array.coords[dim].values.tolist()))
    for dim, found in labels.items():
        if all(isinstance(label, int) for label in found):
            labels[dim] = dict.fromkeys(sorted(found))
    filled = dict(arrays)
    for name, array in arrays.items():
        wanted = {d: list(v) for d, v in labels.items() if d in array.dims}
        if any(array.coords[dim].values.tolist() != kept for dim, kept in wanted.items()):
            none: Any = {array.name: "" if array.dtype.kind == "U" else np.nan}
            for place, values in array.coords.items():  # rows and columns stay whole numbers
                if place not in array.dims and values.dtype.kind in "iu":
                    none[place] = -1
            filled[name] = array.reindex(wanted, fill_value=none)
    return filled


def kept_table(session: Session, positions: int) -> xr.DataArray:
    """[layer, position]: True where a token is in a layer."""
    import xarray as xr

    table = np.zeros((session.model.n_layers, positions), bool)
    for layer, present in enumerate(session.present):
        table[layer, present[present < positions]] = True
    return xr.DataArray(
        table,
        dims=("layer", "position"),
        coords={"layer": np.arange(len(table)), "position": np.arange(positions)},
        name="kept",
        attrs={"description": "True where the token exists in the layer"},
    )
