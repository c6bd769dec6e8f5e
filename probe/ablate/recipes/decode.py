"""Published methods that act at decode time: on the cache, or on the logits."""

from __future__ import annotations

from probe.ablate.base import Ablation
from probe.ablate.carrier import Carrier
from probe.ablate.contrast import Contrast
from probe.ablate.kv import Cache
from probe.ablate.kv_parts import Buckets, NearestPair, Pages, RawQuery, Recent
from probe.ablate.recipe import recipe
from probe.ablate.reduce import Reduce
from probe.ablate.reduction.parts import Score
from probe.ablate.scores_attention import LastQuery, Received
from probe.ablate.scores_encoder import CLS
from probe.ablate.scores_wide import WideCLS
from probe.ablate.sites import Layer


@recipe(
    paper="DyCoke (Tao et al. 2024, arXiv 2411.15024)",
    stages="the second: dynamic pruning of the cache while decoding",
    note="variant: where attention is similar to the last step's the paper goes on with the last "
    "choice, the released code reads the whole cache. Keys are hidden, not removed: no memory is "
    "saved, in the code either.",
)
def dycoke_cache(
    prune: float = 0.7, layer: int = 3, refresh: float = 0.9, variant: str = "paper"
) -> Cache:
    """From `layer` on, each new token reads the visual keys that the layer before it attends to
    most; they are chosen anew when attention changes.

    Args:
        prune: P, the part of the visual keys that is hidden; .7 in the README, .8 in the wrapper.
        layer: L, first layer with hidden keys.
        refresh: cosine of the attention below which keys are chosen anew.
        variant: "paper" or "code".
    """
    return Cache(
        layers=f"{layer}-",
        score=LastQuery(layer=layer - 1),
        keep=round(1 - prune, 12),
        when="step",
        how="hide",
        refresh=refresh,
        variant=variant,
    )


@recipe(
    paper="LiveVLM (Ning et al. 2025, arXiv 2505.15269)",
    stages="compression and retrieval, on a whole clip; not chunk by chunk, and without the "
    "short-term memory of recent chunks",
    note="A stream compresses after each chunk; here the clip is one chunk. The number of recent "
    "queries is not published. Retrieval compares inner products of raw keys and queries.",
)
def livevlm(
    m: int = 12_000,
    recent: int = 16,
    bucket: int = 1,
    retrieve: float = 0.4,
    page: int = 16,
) -> list[Cache]:
    """Before the question at most `m` visual keys stay in each layer, spread over buckets, by the
    attention of the last visual queries; the question then reads the pages that answer it best.

    Args:
        m: visual keys kept.
        recent: visual queries that judge.
        bucket: tokens that stay of each run of the sequence.
        retrieve: part of the pages that is read; 1 for no retrieval.
        page: tokens of a page.
    """
    compress = Cache(
        score=Recent(queries=recent), keep_tokens=m, select=Buckets(bucket), when="video"
    )
    read = Cache(score=RawQuery(), keep=retrieve, select=Pages(page), when="video", how="hide")
    return [compress, read]


@recipe(
    paper="VideoScan (2025, arXiv 2503.09387)",
    stages="carriers, eviction of frames, memory of carriers; without training",
    note="The memory is decided after the clip, by the carriers' keys in layer 0: frames have "
    "read carriers that a stream would have forgotten. Published numbers are of a trained model.",
)
def videoscan(
    m: int = 64,
    keep_frames: bool = False,
    embedding: str = "mean",
    reads: str = "both",
    position: str = "share",
) -> list[Ablation]:
    """A carrier behind each frame is all that the text reads of it; at most `m` are remembered.

    Args:
        m: carriers in memory; 64 or 128 in the paper.
        keep_frames: let the frames' own tokens stay.
        embedding: of a carrier: "mean" of its frame, or "token".
        reads: what is read of a carrier: "both" key and value, its "key", or its "value".
        position: of a carrier: "share" the id of its frame's last token, or "reindex".
    """
    memory = Cache(of="summary", keep_tokens=m, select=NearestPair(), at=0, when="video")
    carrier = Carrier(position, embedding, stream=not keep_frames, reads=reads)
    return [carrier, memory] if keep_frames else [carrier, Cache(keep=0.0), memory]


@recipe(
    paper="Dynamic-LLaVA (Huang et al. 2024, arXiv 2412.00876)",
    stages="eviction of generated text from the cache; its trained predictor is replaced by "
    "attention received so far",
)
def text_kv(keep: float = 0.5, window: int = 16) -> Cache:
    """While decoding, of the tokens generated before the last `window` only the part `keep` that
    received most attention so far stays in the cache.

    Args:
        keep: part of the older generated tokens.
        window: last tokens that always stay.
    """
    return Cache(
        of="generated", score=Received(), keep=keep, window=window, when="step", history=True
    )


@recipe(
    paper="MustDrop (Liu et al. 2024, arXiv 2411.10803)",
    stages="the fourth: the cache of earlier layers is cut to the final set",
    note="Goes with the reductions of the stages before, up to layer `last`.",
)
def mustdrop_cache(first: int = 2, last: int = 14) -> Cache:
    """After the prompt, layers `first` to `last` - 1 lose the visual keys that layer `last` does
    not have any more.

    Args:
        first: first layer that is cut.
        last: layer with the final set.
    """
    return Cache(layers=f"{first}-{last - 1}", keep=1.0, at=last)


@recipe(paper="VCD (Leng et al. 2023, arXiv 2311.16922)")
def vcd(alpha: float = 1.0, beta: float = 0.1, amount: int = 500, seed: int = 0) -> Contrast:
    """Visual contrastive decoding: logits against those of the same prompt with noisy frames.

    Args:
        alpha: weight of the difference.
        beta: plausibility.
        amount: diffusion steps of noise, of 1,000.
        seed: of the noise.
    """
    return Contrast("noise", alpha, beta, amount, seed)


@recipe(
    paper="DAMRO (Gong et al. 2024, arXiv 2410.04514)",
    note="The code takes CLS attention over the full width, without heads (per_head=False), and "
    "samples at temperature 1. Outlier tokens keep their position ids here. Published: alpha 2 "
    "for LLaVA, .5 (POPE) and 1.5 (CHAIR) with k=4 for InstructBLIP.",
)
def damro(
    k: int = 10,
    alpha: float = 0.5,
    beta: float = 0.1,
    per_head: bool = True,
    score: Score | None = None,
) -> Contrast:
    """Logits against those of a stream that sees nothing of the clip but the `k` outlier tokens
    that the vision tower's CLS token attends to most, in the layer before its last.

    Args:
        k: outlier tokens.
        alpha: weight of the difference.
        beta: plausibility.
        per_head: mean of the heads' attention, or attention over the full width.
        score: in place of CLS, for towers without one; for example EncoderReceived(-2).
    """
    by = score or (CLS(layer=-2) if per_head else WideCLS(layer=-2))
    return Contrast(Reduce(at=Layer(0), score=by, keep_tokens=k), alpha, beta)
