"""Candidates: the tokens that a reduction chooses among, at its site, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probe.ablate.reduction.weights import Weights
from probe.errors import ProbeError


@dataclass(frozen=True, eq=False)
class Candidates:
    """Tokens in the order of the sequence.

    Attributes:
        x: [token, channel], the features at the site.
        frame: temporal group of each token, in the layout's numbers; a token that belongs to no
            frame (a newline) has that of the token before it.
        row, col: cell of each token in its frame; -1 where it has none.
        position: layout position of each token.
        mass: how many original tokens each stands for.
        segment: number of the group of the last segmentation each token is in.
        piece: number of the piece of the last split each token is in.
        whole: all candidates of the step, where these are a piece of them; None where they are all.
        total: tokens of the domain before any reduction of the run; 0 for the sum of the mass.
        spent: tokens of the domain in each decoder layer before the site.
        readings: by what asked for it, what was read before the site was reached (attention,
            the vision tower), one value or row of values a candidate.
    """

    x: Float[Tensor, "token channel"]
    frame: Int[np.ndarray, " token"]
    row: Int[np.ndarray, " token"]
    col: Int[np.ndarray, " token"]
    position: Int[np.ndarray, " token"]
    mass: Float[np.ndarray, " token"]
    segment: Int[np.ndarray, " token"] = field(default_factory=lambda: np.zeros(0, np.int64))
    piece: Int[np.ndarray, " token"] = field(default_factory=lambda: np.zeros(0, np.int64))
    whole: Candidates | None = None
    total: int = 0
    spent: tuple[int, ...] = ()
    readings: dict[Any, Tensor] = field(default_factory=dict)

    @classmethod
    def grid(cls, x: Float[Tensor, "time row col channel"]) -> Candidates:
        """Full frames in raster order, with nothing around them."""
        time, rows, cols, _ = x.shape
        index = np.arange(time * rows * cols)
        return cls(
            x=x.reshape(len(index), -1),
            frame=index // (rows * cols),
            row=index % (rows * cols) // cols,
            col=index % cols,
            position=index,
            mass=np.ones(len(index)),
        )

    def __post_init__(self) -> None:
        for name in ("segment", "piece"):
            if len(getattr(self, name)) != len(self):
                object.__setattr__(self, name, np.zeros(len(self), np.int64))

    def __len__(self) -> int:
        return len(self.frame)

    def after(self, w: Weights) -> Candidates:
        """What a reduction leaves of them: merged features, everything else of the anchors."""
        left = self.take(w.anchor)
        return replace(left, x=w.apply(self.x), mass=w.mass)

    def take(self, index: np.ndarray) -> Candidates:
        """Some of them, in this order."""
        rows = torch.as_tensor(index, device=self.x.device)
        return replace(
            self,
            x=self.x[rows],
            frame=self.frame[index],
            row=self.row[index],
            col=self.col[index],
            position=self.position[index],
            mass=self.mass[index],
            segment=self.segment[index],
            piece=self.piece[index],
            readings={key: value[rows.to(value.device)] for key, value in self.readings.items()},
        )

    @cached_property
    def frames(self) -> list[Int[np.ndarray, " token"]]:
        """Numbers of the tokens of each frame, first frame first."""
        return [np.flatnonzero(self.frame == frame) for frame in np.unique(self.frame)]

    @cached_property
    def unit(self) -> Float[Tensor, "token channel"]:
        """The features in float32, each of length 1; a zero vector stays zero."""
        return torch.nn.functional.normalize(self.x.float(), dim=-1)

    @cached_property
    def cells(self) -> tuple[int, int, int]:
        """(frames, rows, columns) where every frame has the same rows and columns, and every cell
        of them in raster order; also after a pool or a lattice, which leave some of them.

        Raises:
            ProbeError: it has not, for instance after another reduction.
        """
        times = len(self.frames)
        (rows, row), (cols, col) = (
            np.unique(places, return_inverse=True) for places in (self.row, self.col)
        )
        index = np.arange(times * len(rows) * len(cols))
        full = (
            len(self) == len(index) > 0
            and min(rows[0], cols[0]) >= 0
            and np.array_equal(row, index % (len(rows) * len(cols)) // len(cols))
            and np.array_equal(col, index % len(cols))
            and (np.diff(self.frame.reshape(times, -1), axis=1) == 0).all()
        )
        if not full:
            raise ProbeError(
                "the tokens here are no full grid of frames, rows and columns (newlines among "
                'them, or a reduction before this one); use of="video", and put it first'
            )
        return times, len(rows), len(cols)

    def stack(self, x: Tensor | None = None) -> Float[Tensor, "time place channel"]:
        """Features [frame, place, channel], for what compares a place with itself along time.

        Args:
            x: something else than the features, [token, channel] or [token].

        Raises:
            ProbeError: frames do not have the same places.
        """
        x = self.x if x is None else x
        sizes = {len(frame) for frame in self.frames}
        places = [(self.row[frame] * 4096 + self.col[frame]).tolist() for frame in self.frames]
        if len(sizes) != 1 or any(one != places[0] for one in places):
            raise ProbeError(
                "frames do not have the same places here (an earlier reduction dropped some), so "
                "a place cannot be followed along time; put this reduction first"
            )
        return torch.stack([x[torch.as_tensor(f, device=x.device)] for f in self.frames])

    def frame_means(self) -> Float[Tensor, "frame channel"]:
        """Mean feature of each frame, in float32."""
        x = self.x.float()
        return torch.stack([x[torch.as_tensor(f, device=x.device)].mean(0) for f in self.frames])
