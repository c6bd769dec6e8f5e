"""Attention sinks by the outliers of the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.gather import array

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session


@dataclass(frozen=True)
class Outliers(Capture):
    """Where the stream that enters a layer is above tau times its root mean square.

    Attributes:
        tau: threshold on |x| / RMS(x).
        dims: dimensions to look at; None for those that are above tau at position 0 in most
            layers from 2 to L - 2.

    Result: outliers [layer, position], 1 where one of the dimensions is above tau; the attribute
    `dims` of the array names them.
    """

    tau: float = 20.0
    dims: Sequence[int] | None = None

    def start(self, session: Session) -> dict:
        return {"above": {}}

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        x = x.float()
        above = x.abs() > self.tau * x.square().mean(-1, keepdim=True).sqrt()
        where = above.nonzero().cpu().numpy()
        state["above"][layer] = session.positions[layer][where[:, 0]], where[:, 1]

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        layers = session.model.n_layers
        dims = self.dims if self.dims is not None else _dims(state["above"], layers)
        values = np.zeros((layers, len(session.layout)), np.float32)
        for layer, (position, dim) in state["above"].items():
            values[layer, position[np.isin(dim, dims)]] = 1
        coords = {"layer": np.arange(layers), "position": np.arange(len(session.layout))}
        about = f"a dimension of the stream is above {self.tau} times its root mean square"
        found = array(session, values, list(coords), coords, "1", about)
        found.attrs["dims"] = [int(dim) for dim in dims]
        return {self.kind: found}

    def memory(self, session: Session) -> int:
        return 4 * session.model.n_layers * len(session.layout)


def sinks(
    outliers: xr.DataArray, dims: Sequence[int] | None
) -> Bool[np.ndarray, "layer pos"] | None:
    """Sinks of each layer; None where no dimension was found. In the first two layers there are
    none by definition.
    """
    if dims is None and not outliers.attrs["dims"]:
        return None
    found = outliers.values > 0
    found[:2] = False
    return found


def _dims(above: dict[int, tuple[np.ndarray, np.ndarray]], count: int) -> list[int]:
    layers = range(2, max(3, count - 1))
    first = [dim[position == 0] for layer, (position, dim) in above.items() if layer in layers]
    if not first:
        return []
    names, times = np.unique(np.concatenate(first), return_counts=True)
    return names[times > len(first) / 2].tolist()
