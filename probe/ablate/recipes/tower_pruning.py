"""Published methods that choose visual tokens by the attention of the vision tower."""

from __future__ import annotations

from probe.ablate.recipe import recipe
from probe.ablate.reduce import Reduce
from probe.ablate.reduction.budget import Correct, Keep
from probe.ablate.reduction.budget_group import Regions
from probe.ablate.reduction.build import Step
from probe.ablate.reduction.merge import Blend, Merge
from probe.ablate.reduction.merge_time import Collapse
from probe.ablate.reduction.parts import Score
from probe.ablate.reduction.segment import PerFrame, SameSegments
from probe.ablate.reduction.segment_static import MaxStatic
from probe.ablate.reduction.select import TopK
from probe.ablate.reduction.select_cluster import DPCKNN
from probe.ablate.reduction.split import SamePieces, Static
from probe.ablate.scores_attention import LastQuery
from probe.ablate.scores_encoder import CLS, EncoderReceived
from probe.ablate.sites import Layer, Site
from probe.ablate.sites import tokens as before_the_model
from probe.errors import ProbeError
from probe.models.selection import Selection


@recipe(
    paper="FasterVLM (Zhang et al. 2024, arXiv 2412.01818)",
    note="Published are 144, 58 and 29 of 576 tokens: keep=.25, .1 and .05. The released code "
    'numbers positions anew; position="keep" leaves them.',
)
def fastervlm(
    keep: float = 0.25,
    score: Score = CLS(layer=-2),  # noqa: B008 - frozen
    position: str = "reindex",
    at: Site = before_the_model(),  # noqa: B008 - frozen
) -> Reduce:
    """Of each frame the tokens that CLS attends to most, whatever is asked.

    Args:
        keep: fraction of each frame's tokens.
        score: of the tokens; EncoderReceived(-2) or PoolHead() where the tower has no CLS token.
        position: "reindex" or "keep".
        at: the site.
    """
    return Reduce(
        at=at, segment=PerFrame(), score=score, budget=Keep(keep, "round"), position=position
    )


@recipe(
    paper="HiRED (Arif et al. 2024, arXiv 2408.10945)",
    note="Published for a picture and its crops (grid=), of a tower with 24 layers: the last but "
    "one is its layer 22. On video the frames are the parts, and share by where the best tokens "
    "of the clip are. Counts are rounded down, so that some of the budget may stay unspent; "
    "keep=1 is everything.",
)
def hired(
    keep: float = 0.2,
    alpha: float = 0.5,
    score: Score = CLS(layer=-2),  # noqa: B008 - frozen
    spread: Score = CLS(layer=0),  # noqa: B008 - frozen
    grid: tuple[int, int] | None = None,
    legacy_strips: bool = False,
    of: Selection = "video",
) -> Reduce:
    """The budget of each part by how many of the tokens with the most early attention it has; in
    each part the tokens with the most late attention.

    Args:
        keep: fraction of all tokens.
        alpha: share of the budget for the overview, where there is one; 1 - alpha of the tokens
            are the best that are counted.
        score: which tokens stay.
        spread: which are best, for the budgets.
        grid: (rows, columns) of crops behind an overview that is the first frame.
        legacy_strips: count in horizontal strips of the overview, as the released code does, in
            place of its quadrants.
        of: the candidates; for a picture in crops name its tokens.

    Raises:
        ProbeError: strips without crops.
    """
    if legacy_strips and grid is None:
        raise ProbeError("hired: legacy_strips=True is about crops; give grid=(rows, columns)")
    budget = Regions(keep, alpha, spread, grid, legacy_strips) if keep < 1 else Keep(keep)
    return Reduce(
        at=before_the_model(), segment=PerFrame(), score=score, budget=budget, of=of,
        position="reindex",
    )  # fmt: skip


@recipe(
    paper="HoliTom (Shao et al. 2025, arXiv 2505.21334)",
    stages="both: static tokens merged and tokens chosen before the language model, halving in it",
    note="Published pairs are keep=.10 with tau=.65, and .15, .20, .25 with .80; k=18 of 28 "
    "layers. context=0 is the released code: dynamic tokens are the best by attention alone; the "
    "paper's figure has a share of them as cluster centres. Densities have no random jitter. "
    'variant "code" leaves a segment\'s static tokens before its dynamic ones, "paper" all in '
    "order.",
)
def holitom(
    keep: float = 0.1,
    tau: float = 0.65,
    inner: bool = True,
    k: int = 18,
    half: float = 0.5,
    beta: float = 0.6,
    knn: int = 7,
    context: float = 0.0,
    score: Score = EncoderReceived(layer=-1),  # noqa: B008 - frozen
    variant: str = "code",
) -> list[Reduce]:
    """Segments with the most static places; these become one token each, and are clustered; of the
    other tokens of each frame those stay that get most attention in the tower. In layer k half of
    them stay, and the others are folded into the most similar.

    Args:
        keep: fraction of the original tokens; raised for what is left after static places merge.
        tau: cosine with the next frame above which a place is static; 1 or more for none.
        inner: with the second stage.
        k, half: its layer, and the fraction that stays there.
        beta: weight of a cluster's centre.
        knn: neighbours of the density; no more than clusters.
        context: D, share of the dynamic tokens that are centres of the rest.
        score: of dynamic tokens.
        variant: "paper" or "code".

    Raises:
        ProbeError: another variant, or a share out of [0, 1].
    """
    if variant not in ("paper", "code") or not 0 <= context <= 1:
        raise ProbeError(
            f'holitom: variant={variant!r}, context={context}; there are "paper" and "code", '
            "and shares from 0 to 1"
        )
    centres, merge = DPCKNN(k=knn, capped=True), Merge("distance", Blend(beta))
    static = Step(budget=Correct(keep), select=centres, rest=merge)
    dynamic = Step(segment=PerFrame(), budget=Correct(keep))
    if context > 0:
        select = TopK().then(centres, 1.0 - context)
        dynamic = Step(segment=PerFrame(), budget=Correct(keep), select=select, rest=merge)
    chosen = Step(segment=SameSegments(), split=SamePieces(), pieces=(static, dynamic))
    outer = Reduce(
        at=before_the_model(), score=score, segment=MaxStatic(tau), split=Static(tau),
        pieces=(Step(rest=Collapse()), Step()), then=(chosen,), position="reindex",
        order="published" if variant == "code" else "raster",
    )  # fmt: skip
    merged = Reduce(at=Layer(k), score=LastQuery(), keep=half, rest=Merge(weight="halving"))
    return [outer, merged] if inner else [outer]
