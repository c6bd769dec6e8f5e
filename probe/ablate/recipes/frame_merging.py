"""Published methods that merge frames and segments of frames, or leave frames out."""

from __future__ import annotations

from collections.abc import Sequence

from probe.ablate.recipe import recipe
from probe.ablate.reduce import Reduce
from probe.ablate.reduction.build import Step
from probe.ablate.reduction.cells import Cells
from probe.ablate.reduction.merge_bipartite import Bipartite
from probe.ablate.reduction.merge_time import Collapse
from probe.ablate.reduction.pool import Pool
from probe.ablate.reduction.segment import Fixed, PerFrame
from probe.ablate.reduction.segment_cluster import NearestEarlier
from probe.ablate.reduction.segment_time import SceneTilling
from probe.ablate.reduction.select_grid import Lattice
from probe.ablate.reduction.time_mean import TimeMean
from probe.ablate.sites import Site
from probe.ablate.sites import tokens as before_the_model
from probe.errors import ProbeError


@recipe(
    paper="LongVLM (Weng et al. 2024, arXiv 2404.03384)",
    stages="merging inside of segments; without the means of CLS over frames, one for each layer "
    "of the tower, that it puts in front",
    note="Published on features of the tower's last layer but one, at=vision_out() in families "
    "with a token for each patch. r is for 10 frames of 256 patches; a round merges at most half.",
)
def longvlm(
    window: int = 10,
    r: Sequence[int] = (1280, 640, 320, 160, 80, 40, 10),
    to: int | None = None,
    heads: int = 16,
    at: Site = before_the_model(),  # noqa: B008 - frozen
) -> Reduce:
    """Segments of frames; in each the best matches of even with odd tokens merge, round after
    round, by mass.

    Args:
        window: frames of a segment.
        r: tokens merged in each round; none leaves all as they are.
        to: in place of r: tokens of a segment, in rounds of a half each.
        heads: groups of channels that are averaged for the comparison.
        at: the site.
    """
    pool = Bipartite(r=tuple(r), to=to, heads=heads)
    return Reduce(at=at, score=None, segment=Fixed(window), pool=pool, position="reindex")


@recipe(
    paper="B-VLLM (Lu et al. 2024, arXiv 2412.09919)",
    stages="merging of frames and of tokens, not the trained selection of frames",
    note="A frame whose match has itself joined another goes there too; the released code loses "
    "it.",
)
def bvllm(tau: float = 0.75, tokens: int | None = None) -> Reduce:
    """Frames are averaged with the earlier frame that they are most like; then tokens of a frame
    merge in halves.

    Args:
        tau: (cosine + 1) / 2 above which frames merge; 1 for none.
        tokens: of each frame in the end; None for all.
    """
    halves = Step(segment=PerFrame(), pool=Bipartite(to=tokens, r=0))
    return Reduce(
        at=before_the_model(), score=None, segment=NearestEarlier(tau), rest=Collapse(),
        then=() if tokens is None else (halves,), position="reindex",
    )  # fmt: skip


@recipe(
    paper="VideoLLaMB, SceneTilling (Wang et al. 2024, arXiv 2409.01071)",
    stages="segments of a scene each, pooled; in place of the trained recurrent memory",
    note="Frames are compared by the mean of their tokens where the paper has CLS.",
)
def scene_tilling(
    alpha: float = 0.5,
    most: int = 15,
    deepest: int | None = None,
    out: Sequence[int | None] = (1, None, None),
) -> Reduce:
    """Cuts in the valleys of similarity between frames; each segment is averaged.

    Args:
        alpha: standard deviations above the mean depth from which a valley is a cut.
        most: cuts at most.
        deepest: in place of alpha, so many of the deepest valleys (3 published).
        out: (frames, rows, columns) that a segment becomes.
    """
    segment = SceneTilling(alpha, most, deepest)
    return Reduce(
        at=before_the_model(), score=None, segment=segment, pool=Cells(Pool(tuple(out))),
        position="reindex",
    )  # fmt: skip


@recipe(
    paper="STORM (Jiang et al. 2025, arXiv 2503.04130)",
    stages="frames left out or averaged when testing, not the trained Mamba layers before it",
)
def storm(s: int = 4, how: str = "stride") -> Reduce:
    """Every s-th frame, or the average of each s frames.

    Args:
        s: frames that become one; 1 changes nothing.
        how: "stride" or "mean".

    Raises:
        ProbeError: another `how`.
    """
    if how not in ("stride", "mean"):
        raise ProbeError(f'storm: how={how!r}; there are "stride" and "mean"')
    if how == "mean":
        return Reduce(at=before_the_model(), score=None, pool=TimeMean(s), position="reindex")
    select = Lattice(time=s)
    return Reduce(at=before_the_model(), score=None, select=select, position="reindex")
