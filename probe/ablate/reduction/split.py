"""Splits: pieces of a group that are treated each in its own way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from probe.ablate.reduction.budget import Keep
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Budget, Index, Score, Split
from probe.ablate.reduction.segment_static import along_time
from probe.errors import ProbeError


@dataclass(frozen=True)
class Static(Split):
    """Places that stay the same over the frames of the group, against the others.

    Attributes:
        tau: cosine above which a place stays the same.
        how: "all": each frame with the next one (HoliTom, arXiv 2505.21334); "mean": the mean over
            all pairs of frames (PruneVid, arXiv 2412.16117). In one frame alone nothing is static.
    """

    tau: float = 0.8
    how: str = "all"

    @property
    def inert(self) -> bool:
        return self.tau >= 1

    def parts(self, c: Candidates, group: Index) -> tuple[Index, ...]:
        if self.how not in ("all", "mean"):
            raise ProbeError(f'static: how="{self.how}"; it is "all" or "mean"')
        inside = c.take(group)
        time = len(inside.frames)
        if time < 2:
            return group[:0], group
        if self.how == "all":
            static = (along_time(inside) > self.tau).all(0)
        else:
            unit = [torch.nn.functional.normalize(x.double(), dim=-1) for x in inside.stack()]
            total, own = torch.zeros_like(unit[0]), torch.zeros_like(unit[0][:, 0])
            for one in unit:
                total, own = total + one, own + (one**2).sum(-1)
            mean = ((total**2).sum(-1) - own) / (time * (time - 1))
            static = (mean.round(decimals=12) > self.tau).cpu().numpy()
        mask = np.zeros(len(group), bool)
        for frame in inside.frames:
            mask[frame] = static
        return group[mask], group[~mask]


@dataclass(frozen=True)
class Ends(Split):
    """The first and the last frame of the group, against those between (EarlyTom)."""

    def parts(self, c: Candidates, group: Index) -> tuple[Index, ...]:
        frame = c.frame[group]
        ends = (frame == frame.min(initial=1 << 40)) | (frame == frame.max(initial=-1))
        return group[ends], group[~ends]


@dataclass(frozen=True)
class First(Split):
    """The first frame of the group, against the others (DyCoke, arXiv 2411.15024)."""

    def parts(self, c: Candidates, group: Index) -> tuple[Index, ...]:
        first = c.frame[group] == c.frame[group].min(initial=1 << 40)
        return group[first], group[~first]


@dataclass(frozen=True)
class SamePieces(Split):
    """The pieces of the last split, as far as they are still there.

    Attributes:
        count: how many pieces that split had.
    """

    count: int = 2

    def parts(self, c: Candidates, group: Index) -> tuple[Index, ...]:
        if c.piece.max(initial=0) >= self.count:
            raise ProbeError(
                f"same_pieces: count={self.count}, but the split before made "
                f"{int(c.piece.max()) + 1} pieces"
            )
        return tuple(group[c.piece[group] == number] for number in range(self.count))


@dataclass(frozen=True)
class Above(Split):
    """Tokens whose score is above a threshold, against the others.

    Attributes:
        tau: the threshold.
        score: by default the score of the step.
    """

    tau: float
    score: Score | None = None

    def leaves(self) -> tuple[Score, ...]:
        return () if self.score is None else self.score.leaves()

    def parts(self, c: Candidates, group: Index) -> tuple[Index, ...]:
        above = scores(self, c)[group] > self.tau
        return group[above], group[~above]


@dataclass(frozen=True)
class Best(Split):
    """The tokens of the best scores, against the others (FastVID's salient tokens, arXiv
    2503.11187; the dominant ones of VisionZip, arXiv 2412.04467).

    Attributes:
        budget: how many; ties go to the earlier token.
        per: "frame": so many of each frame of the group; "group": of the group at once.
        score: by default the score of the step.
    """

    budget: Budget = Keep(0.5)
    per: str = "frame"
    score: Score | None = None

    def leaves(self) -> tuple[Score, ...]:
        own = () if self.score is None else self.score.leaves()
        return (*own, *self.budget.leaves())

    def parts(self, c: Candidates, group: Index) -> tuple[Index, ...]:
        if self.per not in ("frame", "group"):
            raise ProbeError(f'best: per="{self.per}"; it is "frame" or "group"')
        score = scores(self, c)
        frame = c.frame[group]
        pools = (
            [group[frame == one] for one in np.unique(frame)] if self.per == "frame" else [group]
        )
        counts = self.budget.counts(c, pools, score)
        best = [
            pool[np.argsort(-score[pool], kind="stable")[:count]]
            for pool, count in zip(pools, counts, strict=True)
        ]
        chosen = np.isin(group, np.concatenate([group[:0], *best]))
        return group[chosen], group[~chosen]


def scores(split: Above | Best, c: Candidates) -> np.ndarray:
    """The split's own score, or that of the step, [token] in float64.

    Raises:
        ProbeError: there is neither.
    """
    if split.score is not None:
        return split.score.score(c).detach().double().cpu().numpy()
    if "score" not in c.readings:
        raise ProbeError(f"{split.kind}: no score to split by; give score= to it or to its step")
    return c.readings["score"].detach().double().cpu().numpy()
