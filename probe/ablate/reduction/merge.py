"""Merge: every unselected token joins the centre that it resembles most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.compare import Points, features, keys_of
from probe.ablate.reduction.parts import Chosen, Index, Rest, Score
from probe.ablate.reduction.rest import Drop
from probe.ablate.reduction.select_frames import frames_of
from probe.errors import ProbeError
from probe.spec import Spec


@dataclass(frozen=True)
class Blend(Spec):
    """beta times the centre plus (1 - beta) times the mean of what joined it.

    Attributes:
        beta: weight of the centre, 0 to 1.
        counted: it is at least 1 / (n + 1), with n tokens in the mean; FastVID (Shen et al., 2025).
        own: the centre is in the mean too, as in the code of FastVID.
    """

    beta: float
    counted: bool = False
    own: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta <= 1:
            raise ProbeError(f"{self.kind}: beta={self.beta}; it is a fraction from 0 to 1")


@dataclass(frozen=True)
class Merge(Rest):
    """Every unselected token joins the most similar of `chosen.targets`; ties go to the earlier
    target. Without targets they leave. A centre that nothing joins stays as it is.

    Attributes:
        metric: "cos" of the features; "distance", the nearest; "key", cosine of encoder keys.
        weight: how centre and joined tokens make one: "mean" of all; "mass", their mean by mass;
            "halving", one after the other in order of position, (y + x) / 2 each (inner stage of
            HoliTom, Shao et al., 2025: the last weighs most); "add", centre plus the mean of the
            joined, which doubles the gain (VisionZip, Yang et al., 2024); or a Blend.
        per: "group", or "frame": in every frame that has targets, every other token of the group
            joins one of them, so that it counts once for each such frame (anchor frames of
            FastVID, Shen et al., 2025).
    """

    metric: str = "cos"
    weight: str | Blend = "mean"
    per: str = "group"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric not in ("cos", "distance", "key"):
            raise ProbeError(
                f'{self.kind}: metric="{self.metric}" is not "cos", "distance" or "key"'
            )
        weights = ("mean", "mass", "halving", "add")
        if not isinstance(self.weight, Blend) and self.weight not in weights:
            raise ProbeError(
                f'{self.kind}: weight="{self.weight}" is not one of {", ".join(weights)}, '
                "or Blend(beta)"
            )
        if self.per not in ("group", "frame"):
            raise ProbeError(f'{self.kind}: per="{self.per}" is not "group" or "frame"')

    def leaves(self) -> tuple[Score, ...]:
        return keys_of(self.metric)

    def rows(self, c: Candidates, group: Index, chosen: Chosen, score: np.ndarray) -> list[tuple]:
        if len(chosen.targets) == 0:
            return Drop().rows(c, group, chosen, score)
        alone = np.setdiff1d(chosen.centres, chosen.targets)
        parts = [np.sort(chosen.targets)]
        if self.per == "frame":
            parts = frames_of(c, parts[0])
        joined: dict[int, Index] = {}
        for targets in parts:
            others = np.setdiff1d(group, np.concatenate([alone, targets]))
            if len(others):
                joined |= self._joined(c, others, targets)
        rows, shared = [], c.mass.copy()
        shared[np.setdiff1d(group, alone)] /= len(parts)
        for centre in chosen.centres:
            members = joined.get(int(centre), np.zeros(0, np.int64))
            cols = np.concatenate([[centre], members])
            rows.append((centre, cols, self._values(c.mass[cols]), shared[cols].sum()))
        return rows

    def _joined(self, c: Candidates, others: Index, targets: Index) -> dict[int, Index]:
        """What joins each target, sorted."""
        of, metric = ("key", "cos") if self.metric == "key" else ("x", self.metric)
        both = np.concatenate([targets, others])
        x = features(c, of, self.kind)[torch.as_tensor(both)]
        points = Points.of(x, metric)
        index = np.arange(len(both))
        nearest, _ = points.nearest(index[len(targets) :], index[: len(targets)])
        order = np.argsort(nearest, kind="stable")
        found, start = np.unique(nearest[order], return_index=True)
        parts = np.split(others[order], start[1:])
        return {int(targets[i]): part for i, part in zip(found, parts, strict=True)}

    def _values(self, mass: np.ndarray) -> np.ndarray:
        """Weights of centre and joined tokens, of these masses."""
        joined = len(mass) - 1
        if joined == 0:
            return np.ones(1)
        if isinstance(self.weight, Blend):
            size = joined + self.weight.own
            beta = self.weight.beta
            beta = max(beta, 1 / (size + 1)) if self.weight.counted else beta
            values = np.full(joined + 1, (1 - beta) / size)
            values[0] = beta + (1 - beta) / size * self.weight.own
            return values
        if self.weight == "mean":
            return np.full(joined + 1, 1 / (joined + 1))
        if self.weight == "mass":
            return mass / mass.sum()
        if self.weight == "add":
            return np.array([1.0, *np.full(joined, 1 / joined)])
        return 0.5 ** np.array([joined, *range(joined, 0, -1)])
