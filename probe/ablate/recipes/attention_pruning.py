"""Published methods that drop visual tokens inside the language model, by attention and keys."""

from __future__ import annotations

from collections.abc import Sequence

from probe.ablate.base import Ablation
from probe.ablate.recipe import recipe
from probe.ablate.recipes.decode import mustdrop_cache
from probe.ablate.reduce import Reduce
from probe.ablate.reduction.attended import Attended, HalfTextQuery, KeySet, TextRows
from probe.ablate.reduction.budget import Equal, Keep
from probe.ablate.reduction.budget_data import Adaptive
from probe.ablate.reduction.budget_layers import OfOriginal
from probe.ablate.reduction.merge import Merge
from probe.ablate.reduction.parts import Score
from probe.ablate.reduction.rest import Drop, Recycle
from probe.ablate.reduction.segment import Tiles
from probe.ablate.reduction.select_match import Alike, Pivots
from probe.ablate.scores_attention import KeyNorm, LastQuery
from probe.ablate.scores_encoder import CLS
from probe.ablate.scores_text import Raters, TextQuery
from probe.ablate.sites import Layer, Vision
from probe.errors import ProbeError

PICTURE = 576  # tokens that SparseVLM's published counts are of
SPARSEVLM = {
    "v1": {192: (300, 200, 110), 128: (303, 110, 36), 64: (66, 30, 17)},
    "v2": {192: (300, 200, 118), 128: (238, 108, 60), 64: (66, 34, 20)},
}


@recipe(
    paper="DART (Wen et al. 2025, arXiv 2502.11494)",
    note="Tokens are compared by the features that enter layer k, without the final norm of the "
    "released code. Pivots take their turn by norm, visual ones first; in the code the order of a "
    "Python set decides. With keep=1 everything stays; the code fails there. The layer for video "
    "is not published.",
)
def dart(k: int = 2, keep: float = 0.2222, visual: int = 4, text: int = 4) -> Reduce:
    """Pivots are the tokens with the largest keys in layer k - 1; each of them in turn takes the
    tokens least similar to it. visual + pivots * floor(keep * N / pivots) tokens stay.

    Args:
        k: first layer without the others.
        keep: fraction of the visual tokens; .2222 of 576 are 124 tokens.
        visual, text: number of pivots, at least one of each.

    Raises:
        ProbeError: no pivot of one of them.
    """
    if visual < 1 or text < 1:
        raise ProbeError(f"dart: visual={visual}, text={text}; there is at least one pivot of each")
    budget = Equal(keep, block=visual + text, extra=visual) if keep < 1 else Keep(keep)
    select = Pivots(visual, text)
    return Reduce(at=Layer(k), score=KeyNorm(p=1), budget=budget, select=select)


@recipe(
    paper="PyramidDrop (Xing et al. 2024, arXiv 2410.17247)",
    note="Layers are those of a decoder of 32. Rotary positions with three axes cannot be "
    'numbered anew inside the decoder: position="keep" there.',
)
def pyramiddrop(
    layers: Sequence[int] = (8, 16, 24),
    rates: Sequence[float] = (0.5, 0.25, 0.125),
    position: str = "reindex",
) -> list[Reduce]:
    """Stage by stage fewer visual tokens, those that the last position attends to most in the
    layer itself, before it runs.

    Args:
        layers: where a stage begins.
        rates: fraction of the original tokens from there on, int(N * rate).
        position: "reindex" numbers positions anew; "keep".

    Raises:
        ProbeError: not one rate for each layer.
    """
    return [
        Reduce(at=Layer(k), score=LastQuery(k), budget=OfOriginal(rate), position=position)
        for k, rate in _stages("pyramiddrop", layers, rates)
    ]


@recipe(
    paper="SparseVLM (Zhang et al. 2024, arXiv 2410.04417)",
    stages="v1: raters, counts by layer, recycling; v2: without the division of logits by the "
    "rotary response of a vector of ones; rank=True: the branch for video, one layer",
    note="Published counts are of 576 tokens, and are scaled to the number of visual tokens. "
    "Raters are those above the average; where all are equal, all. The rank of attention is "
    'decided at the precision of float32. On three rotary axes give position="keep".',
)
def sparsevlm(
    tokens: int = 192,
    variant: str = "v1",
    layers: Sequence[int] | None = None,
    counts: Sequence[int] | None = None,
    rank: bool = False,
    position: str | None = None,
) -> list[Reduce]:
    """In some layers the visual tokens that the text attends to most stay; of the others v1
    clusters the best into a few.

    Args:
        tokens: 192, 128 or 64, the published settings: the mean over 32 layers, about.
        variant: "v1" or "v2" of the released code.
        layers: first layers without the others; 2, 6 and 15, or 1 with rank.
        counts: tokens of 576 from each of them on, in place of the published ones.
        rank: keep as many as the rank of the attention of the text.
        position: "reindex" (v1) or "keep" (v2) by default.

    Raises:
        ProbeError: another variant or setting.
    """
    if variant not in SPARSEVLM or (counts is None and tokens not in SPARSEVLM[variant]):
        raise ProbeError(
            f"sparsevlm: tokens={tokens}, variant={variant!r}; there are 192, 128 and 64 tokens "
            'of "v1" and "v2", or give counts='
        )
    first = variant == "v1"
    by, rest = (TextQuery, Recycle()) if first else (HalfTextQuery, Drop())
    position = position or ("reindex" if first else "keep")
    if rank:
        (k,) = (1,) if layers is None else layers
        budget = Adaptive("rank", TextRows(k, Raters()))
        at, score = Layer(k), by(k, Raters())
        return [Reduce(at=at, score=score, budget=budget, rest=rest, position=position)]
    found = SPARSEVLM[variant][tokens] if counts is None else counts
    return [
        Reduce(
            at=Layer(k), score=by(k, Raters()), budget=OfOriginal(count / PICTURE, "round"),
            rest=rest, position=position,
        )
        for k, count in _stages("sparsevlm", (2, 6, 15) if layers is None else layers, found)
    ]  # fmt: skip


@recipe(
    paper="MustDrop (Liu et al. 2024, arXiv 2411.10803)",
    stages="all four: tiles merged behind a layer of the vision tower, key set, dual attention "
    "filter, cache of the layers in between cut to the final set",
    note="The released defaults share=1, peak=0 drop nothing in the language model, so that the "
    "third and fourth stage are left out there; the thresholds of the published runs are not "
    "known. Families that pool after their tower cannot merge tiles: merge=2.",
)
def mustdrop(
    merge: float = 0.8,
    share: float = 1.0,
    peak: float = 0.0,
    key: float = 0.08,
    layers: Sequence[int] = (2, 6, 10, 14),
    score: Score = CLS(layer=-1),  # noqa: B008 - frozen
) -> list[Ablation]:
    """Uniform tiles are merged in the vision tower; in the language model tokens leave that the
    text neither attends to together nor peaks on, except for a key set.

    Args:
        merge: mean cosine of a 3 x 3 tile from which it becomes one token; above 1 none does.
        share: share of the text's attention from which a token stays.
        peak: attention of one text token from which a token stays.
        key: part of each frame's tokens, rounded up, in the key set.
        layers: where tokens leave.
        score: of the key set; EncoderReceived() where the tower has no CLS token.
    """
    tiles = Reduce(
        at=Vision(0), score=None, segment=Tiles(3, 3), select=Alike(merge),
        rest=Merge(weight="mass"),
    )  # fmt: skip
    stages: list[Ablation] = [tiles] if merge <= 1 else []
    if peak > 0 and share > 0:
        select = KeySet(Attended(share, peak), score, key)
        stages += [Reduce(at=Layer(k), score=None, select=select) for k in layers]
        if len(layers) > 1:
            stages.append(mustdrop_cache(layers[0], layers[-1]))
    if not stages:
        raise ProbeError("mustdrop: merge above 1 and peak=0 leave nothing to do; change one")
    return stages


def _stages(owner: str, layers: Sequence[int], values: Sequence[float]) -> list[tuple[int, float]]:
    """Layers with what each of them keeps.

    Raises:
        ProbeError: not one value for each layer.
    """
    if len(layers) != len(values) or not layers:
        raise ProbeError(f"{owner}: {len(layers)} layers with {len(values)} values; one for each")
    return list(zip(layers, values, strict=True))
