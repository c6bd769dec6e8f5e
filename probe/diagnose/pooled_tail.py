"""PooledTail: the tail of the visual tokens' norms after they are pooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.capture.base import Capture
from probe.capture.gather import array
from probe.capture.vision_tail import TAIL, norm_tail
from probe.diagnose.cells import grid
from probe.errors import ProbeError

if TYPE_CHECKING:
    import xarray as xr

    from probe.engine.session import Session


@dataclass(frozen=True)
class PooledTail(Capture):
    """The tail of the norms of what enters layer 0, after an adaptive average pool of each frame.

    Attributes:
        windows: cells a side that one pooled token stands for, rounded such that the frame is
            covered; 1 is no pooling.

    Result: pooled_tail [window, tail]; NaN where tokens have no grid, and for a window that makes
    the same size of frame as one before.
    """

    windows: Sequence[int] = (1, 2, 3, 4)

    def start(self, session: Session) -> dict:
        if session.generating:
            raise ProbeError(f"{self.kind}: reads a prompt; use model.run")
        if not self.windows or min(self.windows) < 1:
            raise ProbeError(f"{self.kind}: windows={list(self.windows)}; cells a side, from 1 on")
        return {"table": grid(session.layout, self.kind)}

    def residual(self, session: Session, state: dict, layer: int, x: Tensor) -> None:
        if layer or state["table"] is None:
            return
        rows = np.searchsorted(session.positions[0], state["table"])
        frames = x[torch.as_tensor(rows, device=x.device)].float().cpu()
        state["tails"] = pooled_tails(frames, self.windows)

    def finish(self, session: Session, state: dict) -> dict[str, xr.DataArray]:
        values = state.get("tails", np.full((len(self.windows), len(TAIL)), np.nan))
        coords = {"window": list(self.windows), "tail": list(TAIL)}
        about = "; ".join(TAIL.values())
        return {self.kind: array(session, values, list(coords), coords, "1", about)}


def pooled_tails(
    frames: Float[Tensor, "frame row col channel"], windows: Sequence[int]
) -> Float[np.ndarray, "window tail"]:
    """The tail of the norms by window; NaN for a size of frame that was there before."""
    rows, cols = frames.shape[1:3]
    sides = [(-(-rows // window), -(-cols // window)) for window in windows]
    tails = np.full((len(windows), len(TAIL)), np.nan)
    for number, side in enumerate(sides):
        if side not in sides[:number]:
            tails[number] = norm_tail(pool(frames, side))
    return tails


def pool(
    frames: Float[Tensor, "frame row col channel"], side: tuple[int, int]
) -> Float[np.ndarray, " token"]:
    """Norms after an adaptive average pool of each frame to so many rows and columns."""
    pooled = torch.nn.functional.adaptive_avg_pool2d(frames.movedim(-1, 1), side)
    return pooled.norm(dim=1).flatten().numpy()
