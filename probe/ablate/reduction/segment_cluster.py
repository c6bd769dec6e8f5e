"""Segmentations by clusters of frames."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Index
from probe.ablate.reduction.segment import positive
from probe.ablate.reduction.segment_time import InTime, cosines
from probe.errors import ProbeError


@dataclass(frozen=True)
class DPCFrames(InTime):
    """Density-peak clusters of frames, mended into runs (PruneVid, arXiv 2412.16117).

    Clusters are repaired so that groups follow each other: of each cluster the longest run stays
    (none where all are single frames), and what is between goes to the longer neighbour, the
    earlier one in a tie. No jitter: of two equal densities the earlier frame counts as denser.

    Attributes:
        ratio: clusters a frame, rounded down, at least one.
        k: neighbours that make the density, the frame itself among them; all where there are
            fewer frames.
    """

    ratio: float = 0.25
    k: int = 7

    def cuts(self, c: Candidates) -> list[int]:
        positive(self, "k", self.k)
        if not 0 < self.ratio <= 1:
            raise ProbeError(f"dpc_frames: ratio={self.ratio}; it is above 0 and at most 1")
        x = self.of_frames(c)
        far = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        far = far.numpy().round(12) / x.shape[1] ** 0.5
        count = max(1, int(len(x) * self.ratio + 1e-9))
        return cuts_of(mended(peaks(far, count, self.k)))


@dataclass(frozen=True)
class NearestEarlier(InTime):
    """Frames with the earlier frame that they are most like; groups need not be contiguous
    (B-VLLM, arXiv 2412.09919).

    A frame whose match has itself joined another goes there too; the released code loses it.

    Attributes:
        tau: (cosine + 1) / 2 above which a frame joins.
    """

    tau: float = 0.75

    @property
    def inert(self) -> bool:
        return self.tau >= 1

    def groups(self, c: Candidates) -> list[Index]:
        x = self.of_frames(c)
        leader = np.arange(len(x))
        for t in range(1, len(x)):
            alike = ((cosines(x[:t], x[t][None]) + 1) / 2).numpy()
            nearest = int(alike.argmax())
            if alike[nearest] > self.tau:
                leader[t] = leader[nearest]
        parts = [np.flatnonzero(leader == one) for one in np.unique(leader)]
        return [np.sort(np.concatenate([c.frames[t] for t in part])) for part in parts]


def peaks(far: Float[np.ndarray, "frame frame"], count: int, k: int) -> np.ndarray:
    """Density-peak clustering: number of the cluster of each frame.

    Args:
        far: distances.
        count: clusters.
        k: neighbours that make the density exp(-mean of their squared distances).
    """
    density = np.exp(-(np.sort(far, axis=1)[:, :k] ** 2).mean(1))
    index = np.arange(len(far))
    equal = density[None] == density[:, None]
    denser = (density[None] > density[:, None]) | (equal & (index[None] < index[:, None]))
    gap = np.where(denser, far, far.max()).min(1)
    centres = np.argsort(-gap * density, kind="stable")[:count]
    cluster = far[:, centres].argmin(1)
    cluster[centres] = np.arange(len(centres))
    return cluster


def mended(cluster: np.ndarray) -> np.ndarray:
    """The repair of PruneVid; see `DPCFrames`."""
    label = cluster.copy()
    runs = _runs(cluster.tolist())
    for one in set(cluster.tolist()):
        longest = max(b - a for a, b, value in runs if value == one)
        for a, b, value in runs:
            if value == one and (b - a < longest or longest == 1):
                label[a:b] = -1
    for a, b, value in _runs(label.tolist()):
        if value >= 0:
            continue
        sides = {(x, y): v for x, y, v in _runs(label.tolist())}
        left = [(y - x, v) for (x, y), v in sides.items() if y == a]
        right = [(y - x, v) for (x, y), v in sides.items() if x == b]
        label[a:b] = max([*left, *right], key=lambda side: side[0], default=(0, 0))[1]
    return label


def _runs(label: list[int]) -> list[tuple[int, int, int]]:
    """(first, after the last, label) of each run of equal labels."""
    found, first = [], 0
    for value, run in groupby(label):
        after = first + len(list(run))
        found.append((first, after, value))
        first = after
    return found


def cuts_of(label: np.ndarray) -> list[int]:
    """Where the label changes."""
    return [first for first, _, _ in _runs(label.tolist()) if first]
