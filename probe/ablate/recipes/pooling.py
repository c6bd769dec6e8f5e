"""Published methods that pool visual tokens: grids, ladders, lists and low frequencies."""

from __future__ import annotations

from collections.abc import Sequence

from probe.ablate.recipe import recipe
from probe.ablate.reduce import Reduce
from probe.ablate.reduction.cells import Cells
from probe.ablate.reduction.parts import Pooling, Score
from probe.ablate.reduction.pool import Pool
from probe.ablate.reduction.pool_dct import PoolDCT
from probe.ablate.reduction.pool_list import Pool1D
from probe.ablate.scores_text import TextSimilarity
from probe.ablate.sites import Layer, Site
from probe.ablate.sites import tokens as before_the_model
from probe.errors import ProbeError

Sizes = Sequence[int | None]


@recipe(
    paper="PLLaVA (Xu et al. 2024, arXiv 2404.16994)",
    stages="the pooling, not the scaling of LoRA weights",
    note="Published from 16 x 24 x 24; its code repeats frames where there are too few, which is "
    "refused here. The code's own default is (8, 16, 16).",
)
def pllava(out: Sizes = (16, 12, 12)) -> Reduce:
    """Averages of bins of frames, rows and columns.

    Args:
        out: (frames, rows, columns) of the result; None leaves an axis as it is.
    """
    return _before(Pool(tuple(out)))


@recipe(
    paper="PPLLaVA (Liu et al. 2024, arXiv 2411.02327)",
    stages="the pooling, not the training; without the longer text context of its CLIP",
    note="Weights are by similarity with the question in the space of the decoder's embeddings, "
    "not of CLIP's text tower, which these models do not have. Equal scores are PLLaVA.",
)
def ppllava(
    out: Sizes = (16, 8, 8),
    temp: float = 0.01,
    score: Score = TextSimilarity(),  # noqa: B008 - frozen
) -> Reduce:
    """Averages of bins of frames, rows and columns, weighted by the softmax of how much a token is
    like the question.

    Args:
        out: (frames, rows, columns); 1024 tokens published.
        temp: temperature of the softmax.
        score: of the tokens; of another question for a control.
    """
    return _before(Pool(tuple(out), how="weighted", score=score, temp=temp))


@recipe(
    paper="M3, Matryoshka multimodal models (Cai et al. 2024, arXiv 2405.17430)",
    stages="the pooling, not the training on nested tokens",
    note="Published sides of 24: 24, 12, 6, 3 and 1.",
)
def m3(side: int = 12) -> Reduce:
    """Each frame averaged to side x side tokens."""
    return _before(Pool((None, side, side)))


@recipe(
    paper="DPN, Dynamic Pyramid Network (2025)",
    stages="a fixed schedule of pools, not the trained experts that choose it",
    note="The layers are not published in what this follows; the defaults are thirds of 28.",
)
def dpn(layers: Sequence[int] = (9, 18), kernel: int = 2) -> list[Reduce]:
    """In some layers each kernel x kernel tokens of a frame become one, at the place of the first.

    Args:
        layers: where.
        kernel: of rows and columns; 1 changes nothing.
    """
    pool = Cells(Pool(kernel=(1, kernel, kernel), anchor="first"))
    return [Reduce(at=Layer(k), score=None, pool=pool, position="first") for k in layers]


@recipe(
    paper="LLaVolta (Chen et al. 2024, arXiv 2406.20092)",
    stages="the pooling, not the training in stages",
    note="A run crosses the ends of rows and frames. The released code averages position ids too "
    'and rounds them down: position="mean"; "first" is the id of the first token of a run.',
)
def llavolta(k: int = 2, s: int = 4, position: str = "mean") -> Reduce:
    """In layer k every s visual tokens in a row become their average.

    Args:
        k: the layer; 0 is before the language model.
        s: tokens averaged; 1 changes nothing. 3 and 4 are about the published 70 %.
        position: "mean", "first" or "keep".
    """
    return Reduce(at=Layer(k), score=None, pool=Pool1D(kernel=s), position=position)


@recipe(
    paper="Fourier-VLM (Wang et al. 2025)",
    stages="the low-pass, not the training with it; along time as well with three sizes",
    note='gain="legacy" is the released code, which doubles a constant field from 24 x 24 to '
    "12 x 12 and is trained with that. Published before the projector (at=vision_out(), in "
    "families with a token for each patch), for Qwen behind its merger at two thirds a side.",
)
def fourier_vlm(
    out: Sizes = (12, 12),
    gain: str = "unit",
    at: Site = before_the_model(),  # noqa: B008 - frozen
) -> Reduce:
    """The low frequencies of each frame, as a smaller grid.

    Args:
        out: (rows, columns), or (frames, rows, columns) for three dimensions; None leaves an axis.
        gain: "unit" leaves constant fields as they are; "legacy".
        at: the site.

    Raises:
        ProbeError: not two or three sizes.
    """
    if len(out) not in (2, 3):
        raise ProbeError(f"fourier_vlm: out={out!r}; it is (rows, columns), or frames before them")
    sizes = tuple(out) if len(out) == 3 else (None, *out)
    return _before(PoolDCT(sizes, gain), at)


def _before(pool: Pooling, at: Site = before_the_model()) -> Reduce:  # noqa: B008 - frozen
    """A pool of the grid before the language model, positions anew."""
    return Reduce(at=at, score=None, pool=Cells(pool), position="reindex")
