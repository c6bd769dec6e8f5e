"""Methods that change which frames are shown, or give frames unequal numbers of tokens."""

from __future__ import annotations

from probe.ablate.base import Ablation
from probe.ablate.frame_budget import FrameRelevance
from probe.ablate.frame_scores import FrameScorer, SaysYes
from probe.ablate.frame_selection import SelectFrames
from probe.ablate.frames import Frames, Interleave
from probe.ablate.recipe import recipe
from probe.ablate.reduce import Reduce
from probe.ablate.reduction.budget_group import Proportional
from probe.ablate.reduction.pool_list import SizedPool
from probe.ablate.reduction.segment import PerFrame
from probe.ablate.reduction.select_grid import Grid
from probe.ablate.rope import Rope
from probe.ablate.scores import Random
from probe.ablate.sites import tokens as before_the_model
from probe.ablate.thumbnail import Thumbnail
from probe.errors import ProbeError


@recipe(
    paper="TEMPLE (Li et al. 2025, arXiv 2503.16929)",
    stages="the perturbations, not the training on them",
    note="the released code draws without a seed, and its shuffle may leave the order as it was",
)
def temple(what: str = "shuffle", magnitude: int = 4, seed: int = 0, unit: int = 2) -> Frames:
    """Clips of two frames dropped, reversed or shuffled in chunks; published at 2, 4, 8, 16.

    Args:
        what: "drop", "reverse" or "shuffle".
        magnitude: one clip in so many stays; or about so many chunks. 1 changes nothing.
        seed: of drop and shuffle.
        unit: frames of a clip.

    Raises:
        ProbeError: another change.
    """
    if what not in ("drop", "reverse", "shuffle"):
        raise ProbeError(f'temple: what={what!r}; write "drop", "reverse" or "shuffle"')
    return Frames(what, magnitude=magnitude, unit=unit, seed=None if what == "reverse" else seed)


@recipe(
    paper="ST-LLM (Liu et al. 2024, arXiv 2404.00308)",
    stages="the random masking, which it trains with; published shares are .1 to .7",
    note="the curve over shares is what any method that chooses tokens has to be better than",
)
def st_llm(share: float = 0.5, seed: int = 0) -> Reduce:
    """Random tokens of the video left out; `Frames("mask", ...)` hides parts of the pictures.

    Args:
        share: of the tokens that go; 0 changes nothing.
        seed: of the choice.

    Raises:
        ProbeError: a share out of [0, 1].
    """
    if not 0 <= share <= 1:
        raise ProbeError(f"st_llm: share={share}; it is from 0 to 1")
    return Reduce(at=before_the_model(), score=Random(seed), keep=1 - share, position="reindex")


@recipe(
    paper="T* (Ye et al. 2025, arXiv 2504.02259)",
    stages="the search; any scorer in place of the object detector on pictures of 8 x 8 frames",
    note="the released code then draws the frames by their scores; here the best are taken",
)
def tstar(
    scorer: FrameScorer = SaysYes(),  # noqa: B008 - frozen
    keep: int = 8,
    budget: float | int = 0.1,
    fps: float | None = None,
    seed: int = 0,
) -> SelectFrames:
    """The `keep` best frames of a pool, a tenth of which may be scored.

    Args:
        scorer: scores a frame.
        keep: frames shown.
        budget: share of the pool, or number of frames, that may be scored.
        fps: of the pool, read from the clip's file (published: 1); by default the pool is the
            clip's own frames.
        seed: of the search.
    """
    return SelectFrames(scorer, keep=keep, budget=budget, fps=fps, seed=seed)


@recipe(
    paper="TS-LLaVA (Qu et al. 2024, arXiv 2411.11066)",
    note="a family encodes the thumbnail as it does images, some with more tokens than 576",
)
def ts_llava(
    tokens: int = 2880,
    count: int = 6,
    order: str = "after",
    where: str = "image",
    side: int | None = None,
    frames: int | None = None,
) -> list[Ablation]:
    """A thumbnail of some frames, and tokens at equal distances from all of them.

    Args:
        tokens: how many of the clip's tokens stay, first and last included; published 2880 of
            50 frames with 576.
        count: frames on the thumbnail.
        order: the thumbnail "after" the sampled tokens (the best published) or "before" them.
        where: the thumbnail is an "image", or one more "frame" of the clip.
        side: of the thumbnail as an image, in pixels; published 336.
        frames: frames of the clip, for a thumbnail that is a frame after them.

    Raises:
        ProbeError: `frames` is missing.
    """
    sampled = "video"
    if where == "frame" and order == "after":
        if frames is None:
            raise ProbeError(
                'ts_llava: where="frame" with order="after" needs frames=, how many the clip has'
            )
        sampled = f"video & frames 0-{frames - 1}"
    elif where == "frame":
        sampled = "video - frame 0"
    picked = Reduce(
        at=before_the_model(), score=None, keep_tokens=tokens, select=Grid(), of=sampled,
        position="reindex",
    )  # fmt: skip
    return [Thumbnail(count, order, where, side), picked]


@recipe(
    paper="QuoTA (Luo et al. 2025, arXiv 2503.08689)",
    stages="scorer is the model itself, not Qwen2-VL-2B; without merging of tokens (v4, v5)",
    note="no frame gets more tokens than it has (released: enlarged); names of objects are parsed, "
    "not evaluated; tokens outside a frame's grid need how='pick'",
)
def quota(
    scorer: FrameScorer = SaysYes(decouple=True),  # noqa: B008 - frozen
    tokens: int = 196 * 64,
    how: str = "bilinear",
    power: float = 2.0,
) -> Reduce:
    """Tokens for each frame in proportion to the square of its relevance to the question.

    The published number of frames is `probe.ablate.frame_budget.frames_for(seconds)`.

    Args:
        scorer: scores a frame; EqualFrames() and ShuffledFrames(...) are controls.
        tokens: of all frames together; every frame has the whole part of its share.
        how: frames are resized to a near-square grid, "bilinear" or by the "mean" of bins; or
            "pick" takes tokens at equal distances.
        power: of the relevance.

    Raises:
        ProbeError: another `how`.
    """
    share = Proportional(
        tokens=tokens, score=FrameRelevance(scorer), power=power, room=how != "pick"
    )
    if how == "pick":
        return Reduce(
            at=before_the_model(), score=None, segment=PerFrame(), budget=share, select=Grid(),
            position="reindex",
        )  # fmt: skip
    return Reduce(
        at=before_the_model(), score=None, pool=SizedPool(share, how=how), position="reindex"
    )


@recipe(
    paper="INTP (Shang et al. 2024, arXiv 2409.12963)",
    stages="interleaved encoding and NTK scaling; the 2-bit cache is not here",
    note="interleaving changes nothing where the encoder looks at every frame alone",
)
def intp(parts: int = 4) -> list[Ablation]:
    """More frames than the model was trained for: encoded in interleaved parts, with the rotary
    base scaled for as many times the length. Encode the clip with all the frames first.

    Args:
        parts: given frames over trained ones; 1 changes nothing. Published: 8 frames to 32.
    """
    return [Interleave(parts), Rope(ntk=float(parts))]
