"""Scores that compare tokens by their features at the site."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score
from probe.errors import ProbeError

WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1, 2)  # of the Gaussian kernels
NO_REFERENCE = 2.0  # 1 - cos of opposite vectors, the most there is
TILE = 1 << 22  # similarities at once: 16 MB


@dataclass(frozen=True)
class Change(Score):
    """1 - cosine with the same place in another frame of the segment.

    A token without a reference has 2, the largest change there is.

    Attributes:
        ref: "previous" or "first" frame of the segment; or pairs (frame, reference), numbered in
            the segment: ((1, 0), (2, 0), (3, 2)) in DyCoke (Tao et al. 2024, arXiv 2411.15024).
    """

    ref: str | Sequence[Sequence[int]] = "previous"

    def __post_init__(self) -> None:
        super().__post_init__()
        pairs = isinstance(self.ref, tuple) and all(
            isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(n, int) for n in pair)
            for pair in self.ref
        )
        if self.ref not in ("previous", "first") and not pairs:
            raise ProbeError(
                f"{self.kind}: ref={self.ref!r}; write previous, first or pairs such as "
                "[[1, 0], [2, 0]]"
            )

    def score(self, c: Candidates) -> Tensor:
        places = _places(c)
        index = {place: number for number, place in enumerate(places)}
        reference = np.full(len(c), -1)
        for segment in np.unique(c.segment):
            members = np.flatnonzero(c.segment == segment)
            frames = np.unique(c.frame[members])
            of = self._references(frames.tolist())
            for token in members:
                frame, row, col, nth = places[token]
                found = index.get((of.get(frame, -1), row, col, nth), -1)
                reference[token] = found if found >= 0 and c.segment[found] == segment else -1
        out = torch.full((len(c),), NO_REFERENCE, dtype=torch.float64)
        have = np.flatnonzero(reference >= 0)
        here, there = (torch.as_tensor(i, device=c.x.device) for i in (have, reference[have]))
        out[have] = 1 - (c.unit[here] * c.unit[there]).sum(-1).double().cpu()
        return out

    def _references(self, frames: list[int]) -> dict[int, int]:
        """The reference frame of each frame that has one."""
        if self.ref == "previous":
            return dict(zip(frames[1:], frames[:-1], strict=True))
        if self.ref == "first":
            return dict.fromkeys(frames[1:], frames[0])
        count = len(frames)
        pairs = [(int(pair[0]), int(pair[1])) for pair in self.ref]
        return {frames[a]: frames[b] for a, b in pairs if a < count and b < count}


@dataclass(frozen=True)
class Uniqueness(Score):
    """How unlike other tokens a token is.

    With the Gaussian kernel -sum over a of exp(-|x - m|^2 / 2a), a = 1/8, 1/4, 1/2, 1, 2, where x
    has length 1 and m is the mean of such vectors, not made length 1 again; with "cosine" minus
    the mean cosine. VidCom2 (Liu et al. 2025, arXiv 2505.14454) adds "video" and "frame" up.

    Attributes:
        to: what m is the mean of: all tokens of the "video", or those of the token's "frame";
            "all" compares with each token of the video by itself and takes the mean.
        kernel: "gaussian" or "cosine".
        channels: "all", or "half": only the half of the channels that varies least over the
            tokens, as VidCom2's code has it.
    """

    to: str = "video"
    kernel: str = "gaussian"
    channels: str = "half"

    def __post_init__(self) -> None:
        super().__post_init__()
        known = {
            "to": ("video", "frame", "all"),
            "kernel": ("gaussian", "cosine"),
            "channels": ("all", "half"),
        }
        for name, words in known.items():
            if getattr(self, name) not in words:
                there = ", ".join(words)
                raise ProbeError(f'{self.kind}: {name}="{getattr(self, name)}"; there are {there}')

    def score(self, c: Candidates) -> Tensor:
        x = self._directions(c)
        out = torch.zeros(len(c), dtype=torch.float64)
        if self.to == "all" and self.kernel == "gaussian":
            for rows, cosine in _tiles(x):
                out[rows] = -_gaussian(2 - 2 * cosine).mean(-1).double().cpu()
            return out
        groups = c.frames if self.to == "frame" else [np.arange(len(c))]
        for group in groups:
            mine = x[torch.as_tensor(group, device=x.device)]
            mean = mine.mean(0)
            if self.kernel == "cosine":
                alike = mine @ mean
            else:
                alike = _gaussian((mine - mean).square().sum(-1))
            out[group] = -alike.double().cpu()
        return out

    def _directions(self, c: Candidates) -> Float[Tensor, "token channel"]:
        if self.channels == "all":
            return c.unit
        x = c.x.float()
        order = x.var(0, unbiased=False).argsort(stable=True)
        return normalize(x[:, order[: x.shape[1] // 2].sort().values], dim=-1)


@dataclass(frozen=True)
class Duplication(Score):
    """Minus the largest cosine with a pivot; the pivots themselves come first.

    After DART (Wen et al. 2025, arXiv 2502.11494), where each pivot in turn takes the tokens least
    similar to it (`Pivots`); here one order of all tokens holds for any budget.

    Attributes:
        pivots: how many.
        by: the score whose best tokens are the pivots.
    """

    pivots: int = 4
    by: Score | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.pivots, int) or self.pivots < 1:
            raise ProbeError(f"{self.kind}: pivots={self.pivots}; it is a number from 1 on")

    def _by(self) -> Score:
        from probe.ablate.scores import Norm

        return self.by or Norm(of="key", p=1)

    def leaves(self) -> tuple[Score, ...]:
        return self._by().leaves()

    def score(self, c: Candidates) -> Tensor:
        best = self._by().score(c).double().cpu().argsort(descending=True, stable=True)
        pivots = best[: self.pivots]
        cosine = c.unit @ c.unit[pivots.to(c.unit.device)].T
        out = -cosine.amax(-1).double().cpu()
        out[pivots] = NO_REFERENCE
        return out


@dataclass(frozen=True)
class Density(Score):
    """Density peaks: density times distance to the nearest denser token, inside each segment.

    As in `DPCKNN`, which selects by it: DPC-KNN (Du et al. 2016) as used by Chat-UniVi (Jin et al.
    2023, arXiv 2311.08046), without its random jitter.

    Attributes:
        k: neighbours, the token itself among them.
        metric: "distance" or "cos".
    """

    k: int = 7
    metric: str = "distance"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.k, int) or self.k < 1:
            raise ProbeError(f"{self.kind}: k={self.k}; it is a number from 1 on")
        if self.metric not in ("distance", "cos"):
            raise ProbeError(f'{self.kind}: metric="{self.metric}"; there are distance and cos')

    def score(self, c: Candidates) -> Tensor:
        from probe.ablate.reduction.select_cluster import density_peaks

        out = torch.zeros(len(c), dtype=torch.float64)
        for segment in np.unique(c.segment):
            members = np.flatnonzero(c.segment == segment)
            x = c.x[torch.as_tensor(members, device=c.x.device)]
            density, apart = density_peaks(x, self.k, self.metric)
            out[members] = density * apart
        return out


def _gaussian(squared: Tensor) -> Tensor:
    """Sum of Gaussian kernels of several widths, of squared distances."""
    return torch.stack([(-squared.clamp(min=0) / (2 * a)).exp() for a in WIDTHS]).sum(0)


def _tiles(x: Float[Tensor, "token channel"]) -> Iterator[tuple[slice, Tensor]]:
    """Inner products of rows with all rows, in tiles."""
    size = max(1, TILE // len(x))
    for start in range(0, len(x), size):
        yield slice(start, start + size), x[start : start + size] @ x.T


def _places(c: Candidates) -> list[tuple[int, int, int, int]]:
    """(frame, row, col, number among those with the same three) of each token."""
    seen: dict[tuple[int, int, int], int] = {}
    places = []
    for cell in zip(c.frame.tolist(), c.row.tolist(), c.col.tolist(), strict=True):
        seen[cell] = seen.get(cell, -1) + 1
        places.append((*cell, seen[cell]))
    return places
