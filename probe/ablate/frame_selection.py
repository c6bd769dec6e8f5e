"""SelectFrames: which frames of a long clip are shown, found by scoring only some of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Bool, Float64, Int64

from probe.ablate.base import Ablation
from probe.ablate.frame_scores import FrameScorer, SaysYes, scored
from probe.ablate.frames import reencoded, which_clips
from probe.errors import ProbeError
from probe.video import Clip, read
from probe.video.clip import join

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel

SMOOTH = 0.5  # sum of squares by which the spline may miss the scores


@dataclass(frozen=True)
class SelectFrames(Ablation):
    """The frames with the best scores, found by the temporal search of T*.

    A pool of frames is scored in rounds. The first round is even over the pool; the best quarter
    of a round lends its score to its neighbours, and the next round is drawn where a smooth curve
    through the scores is high. T* scores the cells of an 8 x 8 picture of frames at once with an
    object detector; here any scorer scores frames, which are as many a round.

    Attributes:
        scorer: `SaysYes()` (the model itself), `FrameChange()`, `EqualFrames()` and
            `ShuffledFrames(of)` (controls), `FrameFunction("module:function")`, or one's own.
        keep: how many frames are shown; by default as many as the clip has, with `fps`.
        budget: frames that may be scored: a share of the pool, or a number. T* has a tenth.
        most: never more than this.
        fps: the pool is read from the clip's file at this rate (T*: 1); by default the pool is
            the clip itself.
        each: frames a round.
        spread: neighbours on each side that a good frame lends score / (1 + distance) to.
        enough: a score with which the search ends.
        seed: of the rounds after the first.
        clip: number of the clip, or "all".
    """

    place: ClassVar[str] = "frames"
    source: ClassVar[str] = "T* (Ye et al. 2025, arXiv 2504.02259): temporal search"

    scorer: FrameScorer = SaysYes()
    keep: int | None = None
    budget: float | int = 0.1
    most: int = 1000
    fps: float | None = None
    each: int = 64
    spread: int = 5
    enough: float | None = None
    seed: int = 0
    clip: int | str = "all"

    def prepare(self, model: VideoModel, x: Example) -> Example:
        chosen = which_clips(self.clip, x, self.kind)
        new = [self._select(model, x, c) if n in chosen else c for n, c in enumerate(x.clips)]
        return reencoded(self, model, x, new)

    def _select(self, model: VideoModel, x: Example, clip: Clip) -> Clip:
        pool = clip if self.fps is None else _pool(clip, self.fps)
        keep = len(clip) if self.keep is None else self.keep
        if not isinstance(keep, int) or not 1 <= keep <= len(pool):
            raise ProbeError(
                f"{self.kind}: keep={keep} frames of a pool of {len(pool)}; keep 1 to {len(pool)}"
            )
        if keep == len(clip) and pool is clip:
            return clip
        found = search(
            lambda frames: scored(self.scorer, model, x, pool, frames),
            len(pool),
            self._allowed(len(pool)),
            each=self.each,
            spread=self.spread,
            enough=self.enough,
            seed=self.seed,
        )
        note = f"{keep} of {len(pool)} frames selected, {int(found.seen.sum())} scored"
        return replace(pool.take(best(found.level, keep)), note=join(clip.note, note))

    def _allowed(self, pool: int) -> int:
        share = isinstance(self.budget, float)
        if isinstance(self.budget, bool) or self.budget <= 0 or (share and self.budget > 1):
            raise ProbeError(
                f"{self.kind}: budget={self.budget}; it is a share up to 1.0 or a number of frames"
            )
        if self.each < 1 or self.spread < 0 or self.most < 1:
            raise ProbeError(f"{self.kind}: each and most are at least 1, spread at least 0")
        wanted = int(pool * self.budget) if share else int(self.budget)
        return max(1, min(wanted, self.most, pool))


@dataclass(frozen=True)
class Search:
    """What a search saw.

    Attributes:
        level: score of each frame, lent ones included; 0 where nothing is known.
        seen: which frames were scored.
        rounds: frames scored in each round.
    """

    level: Float64[np.ndarray, " frame"]
    seen: Bool[np.ndarray, " frame"]
    rounds: tuple[Int64[np.ndarray, " _"], ...]


def search(
    score: Callable[[Sequence[int]], Float64[np.ndarray, " scored"]],
    count: int,
    budget: int,
    *,
    each: int = 64,
    spread: int = 5,
    enough: float | None = None,
    seed: int = 0,
) -> Search:
    """The temporal search of T*; never scores a frame twice.

    Multiplying all scores by a number changes nothing about which frames are scored: the curve
    goes through scores divided by the largest one.

    Args:
        score: scores of frames, by their numbers.
        count: frames in the pool.
        budget: how many may be scored.
        each, spread, enough, seed: as in `SelectFrames`.
    """
    draw = np.random.default_rng(seed)
    level, seen = np.zeros(count), np.zeros(count, bool)
    rounds: list[np.ndarray] = []
    while (left := min(budget - int(seen.sum()), each, int((~seen).sum()))) > 0:
        if not rounds:
            frames = np.linspace(0, count - 1, left).astype(np.int64)
        else:
            frames = np.sort(draw.choice(count, left, replace=False, p=_chances(level, seen, left)))
        values = np.asarray(score(frames.tolist()), dtype=np.float64)
        level[frames], seen[frames] = values, True
        rounds.append(frames)
        for frame in frames[values >= np.quantile(values, 0.75)]:
            near = np.arange(max(0, frame - spread), min(count, frame + spread + 1))
            level[near] = np.maximum(level[near], level[frame] / (1 + np.abs(near - frame)))
        if enough is not None and values.max() >= enough:
            break
    return Search(level, seen, tuple(rounds))


def best(level: Float64[np.ndarray, " frame"], keep: int) -> Int64[np.ndarray, " kept"]:
    """The `keep` frames of the highest levels, in order of time; among equals, evenly spread."""
    kept: list[int] = []
    for value in np.unique(level)[::-1]:
        equal = np.flatnonzero(level == value)
        left = keep - len(kept)
        if len(equal) > left:
            equal = equal[np.linspace(0, len(equal) - 1, left).astype(np.int64)]
        kept.extend(equal.tolist())
    return np.sort(np.asarray(kept, dtype=np.int64))


def _chances(
    level: Float64[np.ndarray, " frame"], seen: Bool[np.ndarray, " frame"], wanted: int
) -> Float64[np.ndarray, " frame"]:
    """Probabilities of the frames not seen yet: a smoothing spline through the levels of those
    that were, a sigmoid, and of that the highest quarter.
    """
    from scipy.interpolate import UnivariateSpline

    known = np.flatnonzero(seen)
    height = level / max(float(level.max()), 1e-300)
    curve = np.full(len(level), float(height[known].mean()))
    if len(known) > 1:
        degree = min(3, len(known) - 1)
        curve = UnivariateSpline(known, height[known], k=degree, s=SMOOTH)(np.arange(len(level)))
    chance = 1 / (1 + np.exp(-np.maximum(curve, 1 / len(level))))
    chance[seen] = 0
    least = np.quantile(chance[~seen], 0.75)
    high = np.where(chance >= least, chance, 0)
    chance = high if np.count_nonzero(high) >= wanted else chance
    return chance / chance.sum()


def _pool(clip: Clip, fps: float) -> Clip:
    """The clip's file at another rate."""
    if not Path(clip.source).is_file():
        raise ProbeError(
            f"select_frames: fps= reads the clip's file, and {clip.source} is none; encode a clip "
            "with more frames, and leave fps out"
        )
    return read(clip.source, frames=None, fps=fps)
