"""VideoSpectrum: how smooth the visual tokens are over the frame and over time, by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.gather import array, stack, store
from probe.diagnose.cells import by_frame, grid
from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session

AXES = ("space", "time")
STATISTICS = ("pooled", "median", "low", "high")
PARTS = 256  # channels transformed at once


@dataclass(frozen=True)
class VideoSpectrum(Capture):
    """Part of the DCT energy of the visual tokens that is in the low frequencies.

    Reads the residual stream that enters each layer; the DCT is the orthonormal one of type II.
    "space": over rows and columns of each frame, the block of the first half of the frequencies
    along both, the frame's mean (DC) left out; energies are summed over frames. "time": over
    the frames of each cell (each token of a frame where there are none), the first half, the mean
    left out; summed over cells. The fraction
    is of each channel; "pooled" is that of all channels' energy together, "low" and "high" the
    10th and 90th percentile over channels.

    Result: video_spectrum [layer, axis, statistic]; NaN for "space" where tokens have no grid, and
    for an axis of length 1.
    """

    def start(self, session: Session) -> dict:
        if session.generating:
            raise ProbeError(f"{self.kind}: reads a prompt; use model.run")
        cells = grid(session.layout, self.kind)
        table = by_frame(session.layout, self.kind) if cells is None else cells
        return {"table": table}

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        found = torch.full((len(AXES), len(STATISTICS)), float("nan"), dtype=torch.float64)
        table = state["table"]
        there = session.positions[layer]
        if np.isin(table, there).all():
            rows = torch.as_tensor(np.searchsorted(there, table), device=x.device)
            places = rows.flatten(1)
            parts = x.float().split(PARTS, dim=-1)
            found[1] = statistics(torch.cat([in_time(part[places]) for part in parts], -1))
            if rows.dim() > 2:
                found[0] = statistics(torch.cat([in_space(part[rows]) for part in parts], -1))
        store(session, state, layer, found)

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        layers = list(range(session.model.n_layers))
        coords = {"layer": layers, "axis": list(AXES), "statistic": list(STATISTICS)}
        about = "part of the DCT energy, mean left out, in the first half of the frequencies"
        values = stack(session, state, layers)
        return {self.kind: array(session, values, list(coords), coords, "1", about)}


def in_space(x: Float[Tensor, "frame row col channel"]) -> Float[Tensor, "two channel"]:
    """DCT energy over rows and columns, frames summed, mean left out: low, all."""
    rows, cols = x.shape[1:3]
    along = dct_matrix(cols).to(x) @ x
    energy = torch.einsum("kr,frlc->fklc", dct_matrix(rows).to(x), along).square().sum(0)
    return _split(energy.flatten(0, 1), energy[: half(rows), : half(cols)].sum((0, 1)))


def in_time(x: Float[Tensor, "frame place channel"]) -> Float[Tensor, "two channel"]:
    """DCT energy over frames, places summed, mean left out: low, all."""
    energy = torch.einsum("kf,fpc->kpc", dct_matrix(len(x)).to(x), x).square().sum(1)
    return _split(energy, energy[: half(len(x))].sum(0))


def statistics(energy: Float[Tensor, "two channel"]) -> Tensor:
    """Over channels: fraction of the sums, median, 10th and 90th percentile."""
    energy = energy.double().cpu()
    low, total = energy
    if not torch.isfinite(total).all() or not bool((total > 0).any()):
        return torch.full((len(STATISTICS),), float("nan"), dtype=torch.float64)
    each = (low / total)[total > 0].numpy()
    spread = np.quantile(each, [0.5, 0.1, 0.9])
    return torch.tensor([float(low.sum() / total.sum()), *spread], dtype=torch.float64)


def dct_matrix(n: int) -> Float[Tensor, "frequency place"]:
    """The orthonormal DCT of type II."""
    k, place = torch.arange(n)[:, None].double(), torch.arange(n)[None].double()
    matrix = torch.cos(torch.pi * (place + 0.5) * k / n) * (2 / n) ** 0.5
    matrix[0] /= 2**0.5
    return matrix


def half(n: int) -> int:
    """How many frequencies are the low ones."""
    return max(1, n // 2)


def _split(energy: Tensor, low: Tensor) -> Tensor:
    mean = energy[0]
    total = energy.sum(0) - mean
    # What rounding leaves of a constant is no energy.
    total = torch.where(total > 1e-6 * mean, total, 0)
    return torch.stack([low - mean, total])
