"""Merges along time: a place of the picture with itself in other frames."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Chosen, Index, Rest
from probe.ablate.reduction.select_frames import frames_of
from probe.errors import ProbeError


def places(c: Candidates, group: Index) -> list[tuple[int, int, int]]:
    """Place of each token of the group in its frame: (row, col, 0); of the n-th token of a frame
    without a cell, (-1, -1, n).
    """
    seen: dict[int, int] = {}
    found = []
    for token in group:
        row, col, frame = int(c.row[token]), int(c.col[token]), int(c.frame[token])
        if row >= 0 and col >= 0:
            found.append((row, col, 0))
        else:
            seen[frame] = seen.get(frame, 0) + 1
            found.append((-1, -1, seen[frame]))
    return found


@dataclass(frozen=True)
class Collapse(Rest):
    """Each place of the group over its frames becomes one token, at the earliest of them; whatever
    was selected. Static tokens of HoliTom (Shao et al., 2025) and PruneVid (Huang et al., 2024),
    groups of frames of UniComp, B-VLLM and STORM.

    Attributes:
        how: "mean"; "mass", their mean by mass; "first", that of the earliest frame.
    """

    how: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.how not in ("mean", "mass", "first"):
            raise ProbeError(f'{self.kind}: how="{self.how}" is not "mean", "mass" or "first"')

    def rows(self, c: Candidates, group: Index, chosen: Chosen, score: np.ndarray) -> list[tuple]:
        members: dict[tuple[int, int, int], list[int]] = {}
        for token, place in zip(group, places(c, group), strict=True):
            members.setdefault(place, []).append(int(token))
        rows = []
        for tokens in members.values():
            mass = c.mass[tokens]
            values = mass if self.how == "mass" else np.ones(len(tokens))
            values = values / values.sum()
            if self.how == "first":
                rows.append((tokens[0], tokens[:1], [1.0], mass.sum()))
            else:
                rows.append((tokens[0], tokens, values, mass.sum()))
        return rows


@dataclass(frozen=True)
class PairMerge(Rest):
    """Pairs of neighbouring frames inside of the group become one frame; its first and last stay,
    whatever was selected. EarlyTom (2026), on its segments.

    With s_i the mean over places of the cosine of frame i with the next, frames i and i + 1 are
    merged where s_i is above that of the group's first and last frame, and above s_(i+1); with
    weights s_i / (s_i + s_(i+1)) and the rest.

    Attributes:
        variant: what of the last of the frames in between, after which there is no s_(i+1).
            "code": it leaves, merged or not. "paper": it stays, and merges with equal weights.
    """

    variant: str = "code"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in ("code", "paper"):
            raise ProbeError(f'{self.kind}: variant="{self.variant}" is not "code" or "paper"')

    def rows(self, c: Candidates, group: Index, chosen: Chosen, score: np.ndarray) -> list[tuple]:
        frames = frames_of(c, group)
        inner = frames[1:-1]
        if len(inner) < 2:
            return _alone(c, group)
        ends = _alike(c, frames[0], frames[-1])
        similar = [_alike(c, a, b) for a, b in pairwise(inner)]
        rows, i = _alone(c, frames[0]), 0
        while i < len(inner):
            near = similar[i] if i < len(similar) else -np.inf
            after = similar[i + 1] if i + 1 < len(similar) else None
            if near > ends and (after is None or near > after):
                rows += _pair(c, inner[i], inner[i + 1], self._weight(near, after))
                i += 2
                continue
            if i < len(inner) - 1 or self.variant == "paper":
                rows += _alone(c, inner[i])
            i += 1
        return rows + _alone(c, frames[-1])

    def _weight(self, near: float, after: float | None) -> float:
        """Of the first frame of a pair."""
        if after is None:
            return 1.0 if self.variant == "code" else 0.5
        return near / (near + after) if near + after else 1.0


def _alone(c: Candidates, tokens: Index) -> list[tuple]:
    """Rows of tokens as they are."""
    return [(token, [token], [1.0], c.mass[token]) for token in tokens]


def _alike(c: Candidates, first: Index, second: Index) -> float:
    """Mean over the places that both frames have of the cosine."""
    other = dict(zip(places(c, second), second, strict=True))
    pairs = [(t, other[p]) for t, p in zip(first, places(c, first), strict=True) if p in other]
    if not pairs:
        return 0.0
    a, b = (
        c.x[torch.as_tensor(np.array(side))].detach().double() for side in zip(*pairs, strict=True)
    )
    return round(float(torch.cosine_similarity(a, b, dim=1).mean()), 9)


def _pair(c: Candidates, first: Index, second: Index, weight: float) -> list[tuple]:
    """Rows of two frames, place by place; a place that only one of them has stays."""
    other = dict(zip(places(c, second), second, strict=True))
    rows = []
    for token, place in zip(first, places(c, first), strict=True):
        match = other.pop(place, None)
        if match is None:
            rows += _alone(c, np.array([token]))
            continue
        entries = [(token, weight), (match, 1 - weight)]
        cols, values = zip(*[entry for entry in entries if entry[1] != 0], strict=True)
        rows.append((token, list(cols), list(values), c.mass[token] + c.mass[match]))
    return rows + _alone(c, np.array([*other.values()], dtype=np.int64))
