"""What captures share: which rows they read in a forward, and stacking layers and steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.call import AttentionCall
    from probe.engine.session import Session
    from probe.models.selection import Partition

MANY = 256  # from this number of rows on, one tiled pass is cheaper than their dense rows


def query_groups(session: Session, queries: Partition, owner: str) -> dict[str, np.ndarray]:
    """Labelled query groups; in `generate` the one row that emits each step's token.

    Raises:
        ProbeError: an unknown selection, or named queries in `generate`.
    """
    if not session.generating:
        return session.layout.partition(queries)
    if queries not in ("text", "readout"):
        raise ProbeError(
            f"{owner}: in generate each step has one query, the position that emits its token; "
            'leave queries at "text" or write "readout"'
        )
    return {"readout": np.zeros(0, np.int64)}


def query_axis(queries: Partition, groups: Mapping[str, np.ndarray]) -> tuple[str, Any]:
    """Dim of the queries in a result and its labels: single positions, or named groups."""
    if queries == "tokens":
        return "position", np.arange(len(groups))
    return "query_group", list(groups)


def rows_of(session: Session, call: AttentionCall, groups: Mapping[str, np.ndarray]) -> np.ndarray:
    """Layout positions of all rows that the groups read in this call."""
    if session.generating:
        return call.positions[-1:]
    wanted = np.unique(np.concatenate(list(groups.values())))
    return wanted[np.isin(wanted, call.positions)]


def group_mean(
    session: Session, per_row: Tensor, rows: np.ndarray, groups: Mapping[str, np.ndarray]
) -> Tensor:
    """Mean over each query group of [head, row, ...]; NaN where a group has no row left."""
    if session.generating:
        return per_row
    if all(len(positions) == 1 for positions in groups.values()):
        return _each(per_row, rows, np.concatenate(list(groups.values())))
    means = []
    for positions in groups.values():
        inside = torch.as_tensor(np.flatnonzero(np.isin(rows, positions)), device=per_row.device)
        means.append(per_row[:, inside].mean(1))
    return torch.stack(means, 1)


def _each(per_row: Tensor, rows: np.ndarray, wanted: np.ndarray) -> Tensor:
    """Rows of [head, row, ...] at wanted positions, without a loop; NaN where one is gone."""
    if np.array_equal(rows, wanted):
        return per_row
    there = np.isin(wanted, rows)
    full = per_row.new_full((len(per_row), len(wanted), *per_row.shape[2:]), float("nan"))
    full[:, torch.as_tensor(there)] = per_row[:, np.searchsorted(rows, wanted[there])]
    return full


def store(session: Session, state: dict, layer: int, value: Tensor) -> None:
    """Keep one layer's value of this step, in float32 on the CPU."""
    values = state.setdefault("values", {})
    kept = value.float().cpu().numpy()
    if not session.generating:  # straight into the result; untouched layers take no memory
        if not values:
            state["run"] = np.empty((session.model.n_layers, *kept.shape), np.float32)
        state["run"][layer] = kept
        kept = state["run"][layer]
    values[session.step, layer] = kept


def stack(session: Session, state: dict, layers: Sequence[int]) -> np.ndarray:
    """[layer, ...] of what was stored, or [step, layer, ...] in `generate`."""
    values = state["values"]
    steps = range(max(step for step, _ in values) + 1)
    found = [[values[step, layer] for layer in layers] for step in steps]
    if session.generating:
        return np.stack([np.stack(step) for step in found])
    every = list(layers) == list(range(session.model.n_layers))
    return state["run"] if every else np.stack(found[0])


def array(
    session: Session,
    values: np.ndarray,
    dims: Sequence[str],
    coords: Mapping[str, Any],
    units: str,
    description: str,
) -> xr.DataArray:
    """A DataArray with units and a description; `step` is put in front in `generate`."""
    import xarray as xr

    if session.generating:
        dims, coords = ["step", *dims], {"step": np.arange(len(values)), **coords}
    attrs = {"units": units, "description": description, "dtype": str(session.model.hf.dtype)}
    return xr.DataArray(values, dims=dims, coords=dict(coords), attrs=attrs)


def scatter(values: np.ndarray, positions: np.ndarray, length: int) -> np.ndarray:
    """[..., position] with NaN where a token does not exist."""
    full = np.full((*values.shape[:-1], length), np.nan, np.float32)
    full[..., positions] = values
    return full
