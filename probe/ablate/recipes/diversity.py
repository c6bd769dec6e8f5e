"""Published methods that choose visual tokens unlike one another, before the language model."""

from __future__ import annotations

from probe.ablate.recipe import recipe
from probe.ablate.reduce import Reduce
from probe.ablate.reduction.budget import Keep
from probe.ablate.reduction.budget_data import Unique
from probe.ablate.reduction.budget_group import Softmax
from probe.ablate.reduction.build import Step
from probe.ablate.reduction.merge_overlap import Neighbourhood
from probe.ablate.reduction.merge_time import Collapse
from probe.ablate.reduction.parts import Score
from probe.ablate.reduction.ranked import IfShort, MergeIfShort
from probe.ablate.reduction.segment import PerFrame
from probe.ablate.reduction.segment_time import Leader
from probe.ablate.reduction.select import TopK
from probe.ablate.reduction.select_diverse import Cover, MaxMin
from probe.ablate.reduction.select_match import EvenOdd
from probe.ablate.scores_encoder import CLS
from probe.ablate.scores_features import Uniqueness
from probe.ablate.sites import Site
from probe.ablate.sites import tokens as before_the_model
from probe.errors import ProbeError


@recipe(
    paper="DivPrune (Alvar et al. 2025, arXiv 2503.02175)",
    note="Published: .098 for pictures, .10 in the code's file for video. Ties go to the earlier "
    'token. A model that counts positions anew has position="reindex".',
)
def divprune(keep: float = 0.1, position: str = "keep") -> Reduce:
    """The tokens of the whole clip that are farthest from one another: each next one is that whose
    nearest chosen token is farthest, by 1 - cosine.

    Args:
        keep: fraction of the visual tokens; round(N * keep) stay.
        position: "keep" or "reindex".
    """
    budget = Keep(keep, "round")
    return Reduce(
        at=before_the_model(), score=None, budget=budget, select=MaxMin(), position=position
    )


@recipe(
    paper="VisPruner (Zhang et al. 2025, arXiv 2412.01818)",
    note="Published before the projector, at=vision_out(), which needs a family with one visual "
    "token for each patch; default is the input of the language model. keep=1/9 is 64 of 576.",
)
def vispruner(
    keep: float = 1 / 9,
    important: float = 0.5,
    r: int = 8,
    score: Score = CLS(layer=-2),  # noqa: B008 - frozen
    position: str = "reindex",
    at: Site = before_the_model(),  # noqa: B008 - frozen
) -> Reduce:
    """Of each frame the tokens that CLS attends to most, and of the others those that are left
    when in each round the `r` best matches of even with odd tokens are deleted.

    Args:
        keep: fraction of the visual tokens.
        important: share of them by attention, rounded down; 1 is FasterVLM.
        r: tokens deleted in a round.
        score: of importance; EncoderReceived(-2) or PoolHead() where there is no CLS token.
        position: "reindex" or "keep".
        at: the site.
    """
    select = TopK().then(EvenOdd(r, order="published"), float(important))
    return Reduce(
        at=at, segment=PerFrame(), score=score, budget=Keep(keep, "round"), select=select,
        position=position,
    )  # fmt: skip


@recipe(
    paper="VidCom2 (Liu et al. 2025, arXiv 2505.14454)",
    note="The released code compares the half of the channels that varies least; "
    'channels="all" compares all. Line breaks between rows (LLaVA-Video) stay as they are.',
)
def vidcom2(keep: float = 0.25, temperature: float = 0.01, channels: str = "half") -> Reduce:
    """Frames that are unlike the video keep more; in each the tokens that are unlike the video and
    unlike their frame.

    Args:
        keep: mean fraction of a frame's tokens.
        temperature: of the softmax over frames.
        channels: "half" or "all".
    """
    video, frame = (Uniqueness(to, channels=channels) for to in ("video", "frame"))
    budget = Softmax(keep, video, temperature)
    return Reduce(
        at=before_the_model(), segment=PerFrame(), score=video + frame, budget=budget,
        position="reindex",
    )  # fmt: skip


@recipe(
    paper="UniComp (2025)",
    stages="frame fusion, budgets of frames, spatial compression; without the line break that it "
    "puts after each frame",
    note="Frames are compared by the mean of their tokens, not by the output of a pooling head; "
    "merged frames have the keys of their first frame. u=0 keeps tokens as they are, where the "
    "released code halves them.",
)
def unicomp(
    keep: float = 0.25, tau: float = 0.005, u: float = 0.2, of: str = "key", variant: str = "code"
) -> Reduce:
    """Frames like the first of their group become one, and unique ones get more tokens: by falling
    uniqueness those not within `u` of a chosen one, each averaged with those that are.

    Args:
        keep: fraction of the visual tokens.
        tau: U_f, most distance to the first frame of a group; below 0 no frames are merged.
        u: U_c, distance of tokens.
        of: tokens are near by "key", of the vision tower's last layer, or by "x".
        variant: groups have at most 1 / keep frames ("paper"), or one more ("code").

    Raises:
        ProbeError: another variant, or keep out of (0, 1].
    """
    if variant not in ("paper", "code") or not 0 < keep <= 1:
        raise ProbeError(
            f"unicomp: keep={keep}, variant={variant!r}; keep is above 0 and at most 1, and "
            'there are "paper" and "code"'
        )
    longest = int(1 / keep + 1e-9) + (variant == "code")
    cover = Cover(u, of)
    space = Step(
        segment=PerFrame(),
        score=Uniqueness("frame", kernel="cosine", channels="all"),
        budget=Unique(keep, select=cover),
        select=IfShort(keep, cover),
        rest=MergeIfShort(keep, Neighbourhood(u, of=of)),
    )
    return Reduce(
        at=before_the_model(), score=None, segment=Leader(tau, longest), rest=Collapse(),
        then=(space,), position="reindex",
    )  # fmt: skip
