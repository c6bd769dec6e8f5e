"""What a `Cache` will do: its arguments checked, its layers, and which layer judges which."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from probe.ablate.reduction.parts import Score
from probe.ablate.reduction.select import TopK
from probe.errors import ProbeError
from probe.spec import resolve_layers

if TYPE_CHECKING:
    from probe.ablate.kv import Cache
    from probe.engine.cost_lengths import Lengths

WORDS = {
    "when": ("video", "prefill", "step"),
    "how": ("evict", "hide"),
    "variant": ("paper", "code"),
}


def check(cache: Cache) -> None:
    """Refuse arguments that are wrong whatever the model.

    Raises:
        ProbeError: in one line.
    """
    for name, words in WORDS.items():
        if getattr(cache, name) not in words:
            said = ", ".join(words)
            raise ProbeError(f"{cache.kind}: {name}={getattr(cache, name)!r}; there are {said}")
    if cache.step.allowance() is None and type(cache.select) is TopK:
        raise ProbeError(f"{cache.kind}: give keep= (a fraction) or keep_tokens= (a number)")
    for leaf in cache.step.leaves():
        if leaf.reads - {"attention"}:
            raise ProbeError(
                f"{cache.kind}: {leaf} is not known where keys are judged, in the decoder's "
                "attention; use LastQuery(), Received(), Norm() or another"
            )
    if not isinstance(cache.window, int) or cache.window < 0:
        raise ProbeError(f"{cache.kind}: window={cache.window}; it is a number of tokens")
    live = cache.when == "step" and cache.how == "hide"
    read = any(leaf.reads for leaf in cache.step.leaves())
    if cache.refresh is not None and not (live and read and -1 <= cache.refresh <= 1):
        raise ProbeError(
            f"{cache.kind}: refresh={cache.refresh}; it is a cosine of attention scores, from -1 "
            'to 1, and goes with when="step" and how="hide"'
        )
    if cache.history and not read:
        raise ProbeError(f"{cache.kind}: history is of a score that reads attention")
    if cache.when == "step" and cache.how == "evict" and cache.budget is not None:
        raise ProbeError(f"{cache.kind}: a cache that shrinks has keep= or keep_tokens=")


def plan(
    cache: Cache, count: int, layers: tuple[int, ...]
) -> tuple[dict[int, int], dict[int, dict[Score, int]]]:
    """Which layer judges the keys of each layer, and where its scores read attention.

    Args:
        cache: the ablation.
        count: layers of the model.
        layers: those whose cache it is.

    Returns:
        By layer its judge; by judge and score the layer that is read.

    Raises:
        ProbeError: a judge that does not exist, or that comes too late.
    """
    leaves = [leaf for leaf in cache.step.leaves() if "attention" in leaf.reads]
    named = {layer for leaf in leaves if (layer := getattr(leaf, "layer", None)) is not None}
    at = max(named, default=None) if cache.at is None else cache.at
    if at is not None:
        at = resolve_layers(at, count, cache.kind)[0]
        live = cache.when == "video" or (cache.when == "step" and cache.how == "hide")
        if live and at > layers[0]:
            raise ProbeError(
                f"{cache.kind}: layer {layers[0]} comes before layer {at}, which chooses its keys "
                "in the same forward; name later layers"
            )
    judges = {layer: layer if at is None else at for layer in layers}
    reads = {
        judge: {leaf: leaf.attention_layer(judge + 1) for leaf in leaves}
        for judge in judges.values()
    }
    return judges, reads


def cached(cache: Cache, lengths: Lengths) -> Lengths | None:
    """Token counts with visual keys out of the cache; None where they depend on data."""
    if cache.how == "hide" or cache.of == "generated":
        return lengths
    budget = cache.step.allowance()
    if budget is None or cache.of != "video" or cache.at is not None:
        return None
    left = list(lengths.cached)
    for layer in resolve_layers(cache.layers, len(left), cache.kind):
        sizes = cache.segment.sizes(lengths.frames, left[layer])
        kept = None if sizes is None else budget.expected(sizes)
        if kept is None:
            return None
        left[layer] = kept
    return replace(lengths, cached=tuple(left))
