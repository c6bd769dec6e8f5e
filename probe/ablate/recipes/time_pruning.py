"""Published methods that follow the visual tokens along time, segment by segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from probe.ablate.base import Ablation
from probe.ablate.recipe import recipe
from probe.ablate.recipes.decode import dycoke_cache
from probe.ablate.reduce import Reduce
from probe.ablate.reduction.budget import Equal
from probe.ablate.reduction.budget_layers import OfOriginal
from probe.ablate.reduction.build import Step
from probe.ablate.reduction.merge import Blend, Merge
from probe.ablate.reduction.merge_time import Collapse, PairMerge
from probe.ablate.reduction.parts import Score
from probe.ablate.reduction.ranked import Larger, Ranked, WindowEnds
from probe.ablate.reduction.segment import Fixed, PerFrame, SameSegments
from probe.ablate.reduction.segment_cluster import DPCFrames
from probe.ablate.reduction.segment_time import EMA, DySeg
from probe.ablate.reduction.select_cluster import DPCKNN
from probe.ablate.reduction.select_frames import Anchors
from probe.ablate.reduction.select_grid import LocalTop
from probe.ablate.reduction.split import Best, Ends, First, SamePieces, Static
from probe.ablate.scores_attention import LastQuery
from probe.ablate.scores_encoder import EncoderReceived, PoolHead
from probe.ablate.scores_features import Change
from probe.ablate.scores_text import TextQuery
from probe.ablate.sites import Layer, Vision
from probe.ablate.sites import tokens as before_the_model
from probe.errors import ProbeError


@recipe(
    paper="DyCoke (Tao et al. 2024, arXiv 2411.15024)",
    stages="both: tokens merged along time, and dynamic pruning of the cache while decoding",
    note="variant code: the third frame of the last window keeps all, a last frame without a "
    "partner is lost, and tokens of a frame come sorted by similarity; .494 of the tokens at 32 "
    "frames, .475 in the paper. Nothing is averaged, in the code either. keep is 1 - K; the "
    "loader of the code has K=.3.",
)
def dycoke(
    keep: float = 0.3,
    decode: bool = True,
    prune: float = 0.7,
    layer: int = 3,
    refresh: float = 0.9,
    variant: str = "paper",
) -> list[Ablation]:
    """In each window of four frames the first stays, and of the others the tokens least similar
    to their place in the frame before, or in the first. While decoding, a choice of the cache.

    Args:
        keep: 1 - K, part of the tokens of the three frames; rounded down a frame.
        decode: with the second stage; its arguments are `prune`, `layer` and `refresh` (see
            `dycoke_cache`).
        prune: P, part of the visual keys that is hidden.
        layer: L, first layer with hidden keys.
        refresh: cosine of the attention below which keys are chosen anew.
        variant: "paper" or "code".

    Raises:
        ProbeError: another variant.
    """
    _known("dycoke", variant)
    first, others = Step(), Step(segment=PerFrame(), budget=Equal(keep))
    if variant == "code":
        first = Step(segment=PerFrame(), budget=WindowEnds(keep))
        others = replace(first, select=Ranked())
    merged = Reduce(
        at=before_the_model(), segment=Fixed(4), score=Change(((1, 0), (2, 0), (3, 2))),
        split=First(), pieces=(first, others), position="reindex",
        order="published" if variant == "code" else "raster",
    )  # fmt: skip
    return [merged, dycoke_cache(prune, layer, refresh, variant)] if decode else [merged]


@recipe(
    paper="EarlyTom (2026)",
    stages="all three: frames merged in the vision tower, tokens chosen before the language model, "
    "and merged in it",
    note="Published tau and layers are tuned for each benchmark and ratio; defaults are the code's "
    "fall-backs. variant code compares a frame with its segment's first, paper with the one "
    "before. Segments before the language model are found anew among the frames that are left.",
)
def earlytom(
    keep: float = 0.25,
    tau: float = 0.6,
    layers: Sequence[int] = (6, 21, 23),
    longest: int = 8,
    k: int = 18,
    inner: float = 0.5,
    variant: str = "code",
) -> list[Reduce]:
    """Neighbouring frames inside of segments are merged in the vision tower; of what is left the
    segments' ends keep their best tokens, frames between them the best of each stretch.

    Args:
        keep: fraction of the original visual tokens before the language model.
        tau: running similarity below which a segment ends; above 1 nothing is merged.
        layers: of the vision tower behind which frames are merged; none for no first stage.
        longest: M; the code's segments have at most M - 1 frames.
        k: layer of the language model with the third stage.
        inner: fraction that stays there, the others merged into it; 1 for no third stage.
        variant: "paper" or "code".

    Raises:
        ProbeError: another variant.
    """
    _known("earlytom", variant)
    code = variant == "code"
    most = max(1, longest - 1) if code else longest
    segment = EMA(0.9, tau, most, "first" if code else "previous")
    tower = [
        Reduce(at=Vision(number), score=None, segment=segment, rest=PairMerge(variant))
        for number in layers
    ]
    ends = Step(segment=PerFrame(), budget=OfOriginal(keep, "round"))
    pieces = (ends, replace(ends, select=LocalTop()))
    chosen = Reduce(
        at=before_the_model(), score=EncoderReceived(), segment=segment, split=Ends(),
        pieces=pieces, position="reindex",
    )  # fmt: skip
    merged = Reduce(at=Layer(k), score=LastQuery(), keep=inner, rest=Merge(weight="halving"))
    return [*tower, chosen, *([merged] if inner < 1 else [])]


@recipe(
    paper="FastVID (Shen et al. 2025, arXiv 2503.11187)",
    stages="all; segments are of the mean features of a frame, not of SigLIP's pooled ones",
    note="Published for Qwen2.5-VL: keep=.27, tau=.84. Densities have no jitter here. Clips of "
    "fewer frames than `count` are refused; the code fails.",
)
def fastvid(
    keep: float = 0.1,
    count: int = 8,
    tau: float = 0.9,
    share: float = 0.4,
    every: int = 4,
    beta: float = 0.6,
    score: Score = PoolHead(),  # noqa: B008 - frozen
) -> Reduce:
    """Of each frame the salient tokens stay; in each segment all others are merged into context
    tokens, density peaks of every fourth frame.

    Args:
        keep: rho; int(n * keep) tokens for each frame of n.
        count: c, segments at least.
        tau: frames less similar than this part segments.
        share: d, part of the tokens for context, rounded down.
        every: p, distance of anchor frames.
        beta: least weight of a context token's own features.
        score: of saliency; EncoderReceived() where the tower has no pooling head.
    """
    context = Step(
        budget=Equal(keep, per="frame", share=share, sizes="step"),
        select=Anchors(DPCKNN(k=4), every),
        rest=Merge("cos", Blend(beta, counted=True, own=True), per="frame"),
    )
    return Reduce(
        at=before_the_model(), score=score, segment=DySeg(count, tau),
        split=Best(Equal(keep, share=share, other=True)), pieces=(Step(), context),
    )  # fmt: skip


@recipe(
    paper="PruneVid (Huang et al. 2024, arXiv 2412.16117)",
    stages="all: static places averaged and tokens clustered before the language model, tokens "
    "chosen inside it, caches of the layers before it cut",
    note="Published for 16 frames of 12 x 12 tokens; its PLLaVA baseline has LoRA alpha 14 (4 for "
    "VCG).",
)
def prunevid(
    keep: float = 0.4,
    tau: float = 0.8,
    ratio: float = 0.25,
    cluster: float = 0.5,
    k: int = 10,
    smallest: int = 14,
) -> list[Reduce]:
    """Places that are static over a segment become one token; static and dynamic tokens are
    clustered; behind layer k those stay that the question peaks on.

    Args:
        keep: alpha, fraction of each segment's static and each frame's dynamic tokens in the end;
            1 for no last stage.
        tau: mean cosine above which a place is static; 1 or more for none.
        ratio: segments for each frame.
        cluster: clusters for each token; 1 for no clustering.
        k: layer whose attention decides.
        smallest: pieces of up to so many tokens are not clustered.
    """
    whole = Step(
        budget=Larger(smallest, Equal(cluster)), select=DPCKNN(k=7), rest=Merge("distance")
    )
    each = (whole, replace(whole, segment=PerFrame()))
    clusters = Step(segment=SameSegments(), split=SamePieces(), pieces=each)
    merged = Reduce(
        at=before_the_model(), score=None, segment=DPCFrames(ratio, 7), split=Static(tau, "mean"),
        pieces=(Step(rest=Collapse()), Step()), then=(clusters,), position="reindex",
    )  # fmt: skip
    static, dynamic = Step(budget=Equal(keep)), Step(segment=PerFrame(), budget=Equal(keep))
    chosen = Reduce(
        at=Layer(k + 1), score=TextQuery(agg="max"), segment=SameSegments(), split=SamePieces(),
        pieces=(static, dynamic), cache="retroactive",
    )  # fmt: skip
    return [merged, chosen] if keep < 1 else [merged]


def _known(owner: str, variant: str) -> None:
    """Refuse a variant that does not exist."""
    if variant not in ("paper", "code"):
        raise ProbeError(f'{owner}: variant={variant!r}; there are "paper" and "code"')
