"""Segmentations of the time axis: cuts between frames, from how alike the frames are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Index, Part, Score, Segment
from probe.ablate.reduction.segment import joined, positive
from probe.errors import ProbeError


@dataclass(frozen=True)
class InTime(Segment):
    """Groups of frames that follow each other, from one feature vector a frame.

    Attributes:
        features: a score that reads rows of values (the pooling head, keys), in place of the
            features at the site.
    """

    features: Score | None = field(default=None, kw_only=True)

    def leaves(self) -> tuple[Score, ...]:
        return () if self.features is None else self.features.leaves()

    def groups(self, c: Candidates) -> list[Index]:
        return joined(c, self.cuts(c))

    def cuts(self, c: Candidates) -> list[int]:
        """The first frame of each group after the first."""
        raise NotImplementedError(f"{self.kind} has no cuts()")

    def of_frames(self, c: Candidates) -> Float[Tensor, "frame channel"]:
        """The mean features of each frame, in float64."""
        return means(vectors(self, c, self.features), c.frames)

    def neighbours(self, c: Candidates) -> Float[np.ndarray, " cut"]:
        """Cosines of each frame with the next one."""
        x = self.of_frames(c)
        return cosines(x[:-1], x[1:]).numpy()


@dataclass(frozen=True)
class SceneTilling(InTime):
    """Cuts in the valleys of similarity (VideoLLaMB, arXiv 2409.01071).

    s is the cosine of neighbours; from a cut one climbs left and right as long as s does not fall,
    to the peaks l and r; its depth is l + r - 2 s. Cuts are deeper than mean + alpha * std.

    Attributes:
        alpha: how far above the mean, in standard deviations.
        most: cuts at most, the deepest ones.
        deepest: in place of the threshold, so many of the deepest cuts.
    """

    alpha: float = 0.5
    most: int = 15
    deepest: int | None = None

    def cuts(self, c: Candidates) -> list[int]:
        s = self.neighbours(c)
        if self.deepest is not None and not 0 <= self.deepest <= len(s):
            raise ProbeError(
                f"scene_tilling: deepest={self.deepest} cuts; {len(s) + 1} frames have {len(s)}"
            )
        depth = np.array([_peak(s[i::-1]) + _peak(s[i:]) - 2 * s[i] for i in range(len(s))])
        order = np.argsort(-depth, kind="stable")
        if self.deepest is not None:
            return [int(i) + 1 for i in order[: self.deepest]]
        if len(s) < 2:
            return []
        deep = depth > depth.mean() + self.alpha * depth.std(ddof=1)
        return [int(i) + 1 for i in order if deep[i]][: self.most]


def _peak(s: np.ndarray) -> float:
    """The last value before the first fall."""
    falls = np.flatnonzero(np.diff(s) < 0)
    return float(s[falls[0]] if len(falls) else s[-1])


@dataclass(frozen=True)
class DySeg(InTime):
    """Cuts at the least similar neighbours, and wherever they are unlike (FastVID, arXiv
    2503.11187).

    Attributes:
        count: groups at least: cuts at the count - 1 smallest cosines.
        tau: cuts also where the cosine is below.
    """

    count: int = 8
    tau: float = 0.9

    def cuts(self, c: Candidates) -> list[int]:
        positive(self, "count", self.count)
        s = self.neighbours(c)
        if len(c.frames) < self.count:
            raise ProbeError(
                f"dy_seg: {len(c.frames)} frames cannot be {self.count} groups; "
                "give more frames or a smaller count="
            )
        least = np.argsort(s, kind="stable")[: self.count - 1]
        return [int(i) + 1 for i in {*least.tolist(), *np.flatnonzero(s < self.tau).tolist()}]


@dataclass(frozen=True)
class EMA(InTime):
    """A cut where a running mean of the similarity falls below a threshold (EarlyTom).

    The similarity of two frames is the mean cosine of equal places. It is averaged along the
    group, decay * new + (1 - decay) * old, beginning at 1 with each group.

    Attributes:
        decay: weight of the newest similarity.
        tau: a new group begins below.
        longest: frames of a group at most. The released code's M = 6 gives 5.
        reference: what a frame is compared with: the "first" of its group, as the released code
            does, or the "previous" one, as the paper describes.
    """

    decay: float = 0.9
    tau: float = 0.6
    longest: int = 5
    reference: str = "first"

    @property
    def inert(self) -> bool:
        return self.longest == 1

    def cuts(self, c: Candidates) -> list[int]:
        positive(self, "longest", self.longest)
        if self.reference not in ("first", "previous"):
            raise ProbeError(f'ema: reference="{self.reference}"; it is "first" or "previous"')
        x = c.stack(vectors(self, c, self.features))
        cuts, first, mean = [], 0, 1.0
        for t in range(1, len(x)):
            other = first if self.reference == "first" else t - 1
            new = float(cosines(x[other].double(), x[t].double()).mean())
            mean = self.decay * new + (1 - self.decay) * mean
            if mean < self.tau or t - first >= self.longest:
                cuts.append(t)
                first, mean = t, 1.0
        return cuts


@dataclass(frozen=True)
class Leader(InTime):
    """A frame joins its group while it is like the group's first frame (UniComp).

    Attributes:
        tau: most distance, 1 - cosine, at which it joins; negative: every frame for itself.
        longest: frames of a group at most. The released code has int(1 / keep) + 1.
    """

    tau: float = 0.005
    longest: int | None = None

    @property
    def inert(self) -> bool:
        return self.tau < 0 or self.longest == 1

    def cuts(self, c: Candidates) -> list[int]:
        if self.longest is not None:
            positive(self, "longest", self.longest)
        x = self.of_frames(c)
        cuts, first = [], 0
        for t in range(1, len(x)):
            far = 1 - float(cosines(x[first], x[t])) > self.tau
            if far or (self.longest is not None and t - first >= self.longest):
                cuts.append(t)
                first = t
        return cuts


def vectors(owner: Part, c: Candidates, features: Score | None) -> Float[Tensor, "token channel"]:
    """The features at the site, or what a score read in their place.

    Raises:
        ProbeError: it reads one number a token, which is no vector, or nothing.
    """
    if features is None:
        return c.x
    read = c.readings.get(features)
    if read is None or read.ndim < 2:
        raise ProbeError(
            f"{owner.kind}: features={features} reads no vector for each token; "
            "leave it out, or give one that does, as Keys()"
        )
    return read.flatten(1)


def means(
    x: Float[Tensor, "token channel"], groups: Sequence[Index]
) -> Float[Tensor, "group channel"]:
    """Mean vector of each group, in float64."""
    rows = [x[torch.as_tensor(group, device=x.device)] for group in groups]
    return torch.stack([row.double().mean(0) for row in rows]).cpu()


def cosines(a: Float[Tensor, "*#item channel"], b: Float[Tensor, "*#item channel"]) -> Tensor:
    """Cosines of vectors [item], rounded to 12 digits, so that equal vectors have exactly 1
    whatever their scale.
    """
    return torch.nn.functional.cosine_similarity(a, b, dim=-1, eps=1e-30).round(decimals=12)
