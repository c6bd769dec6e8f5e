"""Visual-only reductions inside the layers (YOPO): head pruning and FFN slicing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from probe.ablate.head_pruning import BlindHeads
from probe.ablate.recipe import Card, recipe
from probe.ablate.slicing import SliceMLP
from probe.errors import ProbeError
from probe.models.selection import Selection

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel

PAPER = "YOPO: Treat visual tokens as text? (arXiv 2410.06169)"
SHARE = 0.4  # the released code: below theta in more than 40 of 100 samples
FIRST = 2  # layers whose heads are never pruned


def visual_head_pruning(
    model: VideoModel,
    examples: Sequence[Example],
    theta: float | None = None,
    left: float | None = None,
    *,
    keys: str = "video",
    share: float = SHARE,
    variant: str = "paper",
) -> BlindHeads:
    """Heads that pay little attention to the video do not see it any more.

    A head is inactive in a sample if mass(text -> video) / mass(text -> text and system) is below
    `theta`; heads that are inactive in more than `share` of the samples are pruned, never those
    of the first two layers. Published: theta .035 / .077 / .2 leave 30 / 20 / 10 of 40 heads
    (LLaVA-1.5-13B), .07 leaves 24 of 28 (Qwen2-VL), .11 is for InternVL2-8B.

    Args:
        model: the model.
        examples: calibration samples with a clip, about 100.
        theta: the threshold; exactly one of `theta` and `left`.
        left: how many heads stay in a layer, mean over the layers that are pruned; the threshold is
            chosen for it.
        keys: what counts as the video.
        share: see above.
        variant: "paper" (weights on the video are 0), or "code" (what these heads put out in the
            rows of the video is 0 as well).

    Returns:
        The ablation: its `heads` are the pairs (layer, head).

    Raises:
        ProbeError: not exactly one of theta and left, no example, or one without a clip.
    """
    _check(model, theta, left, share, variant)
    ratios = np.stack([visual_ratio(model, x, keys) for x in _several(examples)])
    needed = math.floor(share * len(ratios) + 1e-9)  # inactive in more samples than this
    level = np.sort(ratios, axis=0)[needed]  # below theta <=> inactive in more than `needed`
    if theta is None:
        assert left is not None
        count = round((model.n_heads - left) * max(0, model.n_layers - FIRST))
        order = np.argsort(level[FIRST:], axis=None, kind="stable")[:count]
        layers, heads = np.unravel_index(np.sort(order), level[FIRST:].shape)
    else:
        layers, heads = np.nonzero(level[FIRST:] < theta)
    pairs = [(int(layer) + FIRST, int(head)) for layer, head in zip(layers, heads, strict=True)]
    return BlindHeads(pairs, keys=keys, queries="also" if variant == "code" else "kept")


def visual_ratio(
    model: VideoModel, x: Example, keys: str = "video"
) -> Float[np.ndarray, "layer head"]:
    """mass(text -> video) / mass(text -> text and system) of every head.

    Queries are the text tokens behind the first token of the video; those before it see none.

    Raises:
        ProbeError: an example without a clip, or without text behind it.
    """
    from probe.capture import AttentionMass

    first = int(x.layout.select(keys)[0])
    queries = f"text - tokens 0-{first}"
    mass = model.run(x, [AttentionMass(queries=[queries], keys=[keys, "text"])]).data
    seen = mass.attention_mass.isel(query_group=0).values
    return seen[..., 0] / seen[..., 1]


@recipe(paper=PAPER, stages="all; without the published fine-tuning")
def ffn_slicing(ratio: float = 2.0, at: Selection = "video") -> SliceMLP:
    """Visual tokens use the first m / ratio hidden units of every MLP."""
    return SliceMLP(ratio=ratio, at=at)


visual_head_pruning.__dict__["card"] = Card(
    PAPER,
    note="calibrated in Python on examples; BlindHeads(heads=...) is what it finds. The code also "
    "zeroes what these heads put out in visual rows: variant='code'",
)


def _several(examples: Sequence[Example]) -> list[Example]:
    found = list(examples)
    if not found:
        raise ProbeError("visual_head_pruning: there is no calibration example")
    return found


def _check(
    model: VideoModel, theta: float | None, left: float | None, share: float, variant: str
) -> None:
    name = "visual_head_pruning"
    if (theta is None) == (left is None):
        raise ProbeError(f"{name}: give exactly one of theta= and left=")
    if left is not None and not 0 <= left <= model.n_heads:
        raise ProbeError(f"{name}: left={left}; this model has {model.n_heads} heads in a layer")
    if not 0 <= share < 1:
        raise ProbeError(f"{name}: share={share}; write a part of the samples, 0 to below 1")
    if variant not in ("paper", "code"):
        raise ProbeError(f'{name}: variant="{variant}"; there are paper, code')
