"""Published methods that leave visual tokens out of some or all later layers."""

from __future__ import annotations

from collections.abc import Sequence

from probe.ablate.recipe import recipe
from probe.ablate.reduce import Reduce
from probe.ablate.reduction.at_most import AtMost
from probe.ablate.reduction.budget import Equal
from probe.ablate.reduction.bypass import Bypass
from probe.ablate.reduction.parts import Score
from probe.ablate.reduction.segment import PerFrame
from probe.ablate.reduction.select import TopK
from probe.ablate.reduction.select_grid import Lattice
from probe.ablate.scores import Norm, Position
from probe.ablate.scores_relevance import Relevance
from probe.ablate.scores_text import TextQuery
from probe.ablate.sites import Layer
from probe.ablate.sites import tokens as before_the_model


@recipe(
    paper="YOPO (Zhang et al. 2024, arXiv 2410.06169)",
    stages="layer drop; neighbour attention, head pruning and FFN slicing are recipes of their own",
    note="Published: layer 24 of 28 of Qwen2-VL, where columns are masked before the softmax, as "
    "here. The code for LLaVA sets weights to 0 behind it without renormalising.",
)
def yopo_drop(k: int = 24) -> Reduce:
    """From layer k on there are no visual tokens."""
    return Reduce(at=Layer(k), score=None, keep=0.0)


@recipe(
    paper="VideoLLM-MoD (Wu et al. 2024, arXiv 2408.16730)",
    stages="skipping of layers; the router is trained there, and a score here",
    note="Which layers skip is not published in what this follows; every other one here, of 28. "
    "The sequence stays as long as it is, and the cache of these layers is shorter.",
)
def mod_skip(
    layers: Sequence[int] = range(1, 28, 2),
    keep: float = 0.2,
    score: Score = Norm(),  # noqa: B008 - frozen
) -> list[Reduce]:
    """In some layers most visual tokens pass by: they are neither read nor changed there.

    Args:
        layers: which.
        keep: fraction of each frame's tokens that go through, rounded down.
        score: which they are: Norm(), Received() of the layer before, or Random() for a control.
    """
    budget = Equal(keep)
    return [
        Reduce(at=Layer(k), segment=PerFrame(), score=score, budget=budget, rest=Bypass())
        for k in layers
    ]


@recipe(
    paper="ATP-LLaVA (Ye et al. 2024, arXiv 2412.00447)",
    stages="attention and lattice together; a ratio in place of the learned threshold",
    note="Without a lattice, and with score=LastQuery(), it is FastV.",
)
def atp(
    k: int = 2,
    keep: float = 0.25,
    row: int = 4,
    col: int = 4,
    time: int = 1,
    score: Score = TextQuery(),  # noqa: B008 - frozen
    lattice: bool = True,
) -> Reduce:
    """From layer k on the tokens that the question attends to most, and those on a lattice.

    Args:
        k: first layer without the others.
        keep: fraction of the visual tokens by attention.
        row, col, time: distances on the lattice.
        score: of the tokens.
        lattice: with the lattice.
    """
    select = TopK() | Lattice(time, row, col) if lattice else TopK()
    return Reduce(at=Layer(k), score=score, keep=keep, select=select)


@recipe(
    paper="Generic token compression in multimodal LLMs from an explainability perspective (2025)",
    stages="pruning by relevance itself, not by the small network trained to predict it",
    note="It takes a run forward and backward before the reduced one.",
)
def relevance_prune(
    keep: float = 0.5, target: str | int | None = None, position: str = "keep"
) -> Reduce:
    """The visual tokens that the answer hangs on most, by attention times gradient.

    Args:
        keep: fraction of the visual tokens.
        target: the answer's first token; the model's own by default.
        position: "keep" or "reindex".
    """
    return Reduce(at=before_the_model(), score=Relevance(target), keep=keep, position=position)


@recipe(
    paper="MQT, Matryoshka query transformer (Hu et al. 2024, arXiv 2405.19315)",
    stages="the prefix, not the training of nested queries",
    note="Published: 2 to 256 queries of a picture. In a model without nested queries these are "
    "the top rows of a frame: a control of position.",
)
def mqt(m: int = 16) -> Reduce:
    """The first m tokens of each frame."""
    return Reduce(
        at=before_the_model(), segment=PerFrame(), score=Position(), budget=AtMost(m),
        position="reindex",
    )  # fmt: skip
