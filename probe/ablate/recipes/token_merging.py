"""Published methods that merge visual tokens into others: pairs, centres, and places along time."""

from __future__ import annotations

from probe.ablate.recipe import recipe
from probe.ablate.reduce import Reduce
from probe.ablate.reduction.budget import Count, Keep
from probe.ablate.reduction.budget_data import Adaptive
from probe.ablate.reduction.build import Step
from probe.ablate.reduction.by_key import KeyBipartite, KeyMerge
from probe.ablate.reduction.merge_overlap import Gather
from probe.ablate.reduction.merge_time import Collapse
from probe.ablate.reduction.parts import Score
from probe.ablate.reduction.ranked import Ranked
from probe.ablate.reduction.rest import Summary
from probe.ablate.reduction.segment import PerFrame
from probe.ablate.reduction.select import TopK
from probe.ablate.reduction.select_grid import FinerGrid, Grid
from probe.ablate.reduction.settle import OnceSettled, UntilSettled
from probe.ablate.scores_attention import LastQuery
from probe.ablate.scores_encoder import CLS, Keys
from probe.ablate.scores_wide import WideCLS
from probe.ablate.sites import Layer, Mid, Site, Vision
from probe.ablate.sites import tokens as before_the_model


@recipe(
    paper="ToMe (Bolya et al. 2022, arXiv 2210.09461)",
    stages="merging, by mass; not proportional attention. Behind each layer, where the paper "
    "merges between its attention and its MLP",
    note="Tokens stay in raster order, so that even and odd ones are others than in the released "
    "code from the second layer on. Families that pool after their tower have no token for each "
    "patch, and refuse it.",
)
def tome(r: int = 8, layers: int = 24) -> list[Reduce]:
    """Behind each layer of the vision tower the `r` best matches of even with odd tokens of a frame
    become one token each; matched by the mean over heads of their keys.

    Args:
        r: tokens fewer a frame and layer.
        layers: how many layers of the tower, from the first.
    """
    return [
        Reduce(
            at=Vision(number), score=None, segment=PerFrame(),
            pool=KeyBipartite(r, Keys(number, "mean")),
        )
        for number in range(layers)
    ]  # fmt: skip


@recipe(
    paper="VisionZip (Yang et al. 2024, arXiv 2412.04467)",
    note="Published before the projector, at=vision_out(), which needs a family with one visual "
    "token for each patch; default is the input of the language model. The published 54 dominant "
    "tokens of a picture are CLS itself and 53 patches; CLS is no visual token here. Contextual "
    "tokens are their centre plus the mean of what joined it: their norm grows.",
)
def visionzip(
    tokens: int = 50,
    keep: float | None = None,
    dominant: float | int = 54 / 64,
    score: Score = CLS(layer=-2),  # noqa: B008 - frozen
    at: Site = before_the_model(),  # noqa: B008 - frozen
) -> Reduce:
    """Of each frame the dominant tokens, that CLS attends to most, and contextual ones at equal
    distances among the others, into which all that is left is merged.

    Args:
        tokens: of each frame; 50 in the port to video, 64 of a picture.
        keep: in its place, a fraction of each frame's tokens.
        dominant: share of them that is dominant, rounded down, or their number.
        score: of dominance; EncoderReceived(-2) where the tower has no CLS token.
        at: the site.
    """
    return Reduce(
        at=at, segment=PerFrame(), score=score,
        budget=Count(tokens) if keep is None else Keep(keep, "floor"),
        select=Ranked().then(Grid(spacing="stride"), dominant),
        rest=KeyMerge("add", Keys(-2, "mean")), position="reindex", order="published",
    )  # fmt: skip


@recipe(
    paper="LLaVA-PruMerge and PruMerge+ (Shang et al. 2024, arXiv 2403.15388)",
    note="Published before the projector, at=vision_out(), which needs a family with one visual "
    "token for each patch; default is the input of the language model. Each frame is treated as "
    "the paper's picture. A frame without outliers keeps its best token; the code fails. Rows "
    "overlap and do not sum to 1.",
)
def prumerge(
    plus: bool = False,
    k: int = 32,
    factor: float = 1.5,
    score: Score = WideCLS(layer=-1),  # noqa: B008 - frozen
    at: Site = before_the_model(),  # noqa: B008 - frozen
) -> Reduce:
    """Of each frame the tokens whose attention from CLS is an outlier, each with what is most
    similar to it added by attention; and one more of all the others.

    Args:
        plus: also tokens on a grid three times finer than the outliers' number (PruMerge+).
        k: tokens that are added to each, the most similar by key.
        factor: of the interquartile range, above which a token is an outlier.
        score: of the tokens; EncoderReceived() where the tower has no CLS token.
        at: the site.
    """
    return Reduce(
        at=at, segment=PerFrame(), score=score, budget=Adaptive("iqr", factor=factor),
        select=TopK() | FinerGrid(3) if plus else Ranked(),
        rest=Summary("sum", Gather(k)), position="reindex", order="published",
    )  # fmt: skip


@recipe(
    paper="FrameFusion (Fu et al. 2025, arXiv 2501.01986)",
    stages="both: merging until few places are alike, then one cut by attention; not in the last "
    "layer",
    note="Published tau is .5 for InternVL. The released code counts 28 layers for every model; "
    "give `layers` as they are.",
)
def framefusion(
    cost: float = 0.3, tau: float = 0.6, floor: float = 0.1, layers: int = 28
) -> list[Reduce]:
    """Before the language model and then between attention and MLP of each layer, tokens like
    their place in the frame before are merged into it, until fewer than the share `floor` are; in
    the next layer those that the last position attends to least leave, so many that the sum over
    layers is `cost` of what it would be.

    Args:
        cost: share of the sum over layers of the visual tokens.
        tau: cosine from which tokens are merged; above 1 none is.
        floor: share of merged tokens below which merging ends.
        layers: of the language model.
    """
    runs = UntilSettled(tau, cost=cost, layers=layers, until=floor)
    cut = Step(score=LastQuery(), budget=OnceSettled(cost, layers, after=floor))
    return [
        Reduce(
            at=Mid(k - 1) if k else Layer(0), score=None, segment=runs, rest=Collapse(),
            then=(cut,) if k else (),
        )
        for k in range(layers)
    ]  # fmt: skip
