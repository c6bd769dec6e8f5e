"""A fraction of the visual tokens for each layer, given, on a curve, or found on examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.ablate.recipe import Card, recipe
from probe.ablate.reduce import Reduce
from probe.ablate.reduction import budget_layers
from probe.ablate.reduction.parts import Score
from probe.ablate.scores_text import TextQuery
from probe.ablate.sites import Layer
from probe.errors import ProbeError

if TYPE_CHECKING:
    from probe.models.encode import Example
    from probe.models.video_model import VideoModel

PAPER = "Accelerating multimodal LLMs by searching optimal vision token reduction (Zhao et al.)"
LEVELS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
STEEPNESS = (5.0, 10.0, 20.0, 40.0)
LEAST = (0.0, 0.05, 0.1)


@recipe(
    paper=PAPER,
    note="Any schedule of pruning by rank: 1 up to a layer and then 1 - R is FastV, to 0 is YOPO's "
    "layer drop, steps are PyramidDrop.",
)
def schedule(
    rates: Sequence[float],
    score: Score = TextQuery(),  # noqa: B008 - frozen
) -> list[Reduce]:
    """In each layer a fraction of the original visual tokens; those that leave are the lowest of
    those that are left.

    Args:
        rates: fraction of each layer, never rising; the last one goes on behind them.
        score: of the tokens, by default the question's attention in the layer before.

    Raises:
        ProbeError: rates that rise, or are out of [0, 1].
    """
    return [
        Reduce(at=Layer(k), score=score, budget=budget)
        for k, budget in budget_layers.schedule(rates, "drop")
    ]


@recipe(
    paper=f"P-Sigmoid, of {PAPER}",
    note="Its parameters are found by `find_sigmoid`. No code is published: the curve over depth "
    "is our reading.",
)
def p_sigmoid(
    layers: int = 28,
    middle: float = 0.3,
    steepness: float = 20.0,
    least: float = 0.0,
    score: Score = TextQuery(),  # noqa: B008 - frozen
) -> list[Reduce]:
    """Fractions that fall with depth along a sigmoid; layer 0 sees every token.

    Args:
        layers: of the decoder.
        middle: depth, as a fraction, where half of the fall is behind.
        steepness: of the fall.
        least: fraction that it falls to.
        score: of the tokens.
    """
    return schedule(curve(layers, middle, steepness, least), score)


def curve(layers: int, middle: float, steepness: float, least: float = 0.0) -> tuple[float, ...]:
    """Rates of `p_sigmoid`: 1 in layer 0, where no attention has been read yet, and rounded to
    thousandths.
    """
    rates = budget_layers.sigmoid(layers, middle, steepness, least)
    return (1.0, *(round(rate, 3) for rate in rates[1:]))


def find_sigmoid(
    model: VideoModel,
    examples: Sequence[Example],
    cost: float = 0.5,
    measure: Callable[..., float] | None = None,
    *,
    steepness: Sequence[float] = STEEPNESS,
    least: Sequence[float] = LEAST,
    score: Score = TextQuery(),  # noqa: B008 - frozen
) -> list[Reduce]:
    """The sigmoid with the best measure among those with the same mean rate over layers.

    The paper optimises by Bayesian optimisation; here every pair of the given values is tried,
    with the middle that meets the cost.

    Args:
        model: the model.
        examples: calibration samples with a clip.
        cost: mean over layers of the fraction of visual tokens.
        measure: of a Run, larger is better; the margin of the model's own answer by default.
        steepness, least: values tried.
        score: of the tokens.

    Returns:
        `p_sigmoid(...)` with the parameters found.

    Raises:
        ProbeError: no example, or a cost that no sigmoid meets.
    """
    found: list[list[Reduce]] = []
    for steep in steepness:
        for low in least:
            middle = _middle(model.n_layers, cost, steep, low)
            if middle is not None:
                found.append(p_sigmoid(model.n_layers, middle, steep, low, score))
    if not found:
        raise ProbeError(f"find_sigmoid: cost={cost}; no sigmoid has it as its mean")
    values = _measured(model, examples, found, measure, "find_sigmoid")[1:]
    return found[int(np.argmax(values))]


def _middle(layers: int, cost: float, steepness: float, least: float) -> float | None:
    """Where the sigmoid's middle must be for a mean rate, by bisection; None where nowhere."""
    low, high = -1.0, 2.0
    if not (_mean(layers, low, steepness, least) <= cost <= _mean(layers, high, steepness, least)):
        return None
    for _ in range(40):
        half = (low + high) / 2
        below = _mean(layers, half, steepness, least) < cost
        low, high = (half, high) if below else (low, half)
    return round(high, 4)


def _mean(layers: int, middle: float, steepness: float, least: float) -> float:
    return float(np.mean(curve(layers, middle, steepness, least)))


def g_search(
    model: VideoModel,
    examples: Sequence[Example],
    epsilon: float = 0.05,
    measure: Callable[..., float] | None = None,
    *,
    levels: Sequence[float] = LEVELS,
    score: Score = TextQuery(),  # noqa: B008 - frozen
) -> list[Reduce]:
    """From the first layer to the last the smallest rate, of those not above the layer before, with
    which the measure stays at 1 - epsilon of what it is with every token.

    While a layer is decided, all later ones have its rate. The paper searches each layer's rate by
    Bayesian optimisation; its tolerance is not known. Layer 0 keeps everything: no attention has
    been read there.

    Args:
        model: the model.
        examples: calibration samples with a clip.
        epsilon: tolerance, a fraction of the full measure.
        measure: of a Run, larger is better and above 0; the margin of the model's own answer by
            default. The mean over examples counts.
        levels: rates that may be chosen, beside 1.
        score: of the tokens.

    Returns:
        `schedule(rates)`.

    Raises:
        ProbeError: no example, or a full measure that is not above 0.
    """
    if not 0 <= epsilon < 1:
        raise ProbeError(f"g_search: epsilon={epsilon}; it is a fraction from 0 to below 1")
    rates = [1.0]
    for layer in range(1, model.n_layers):
        tried = sorted({level for level in levels if level < rates[-1]})
        lists = [schedule((*rates, *[level] * (model.n_layers - layer)), score) for level in tried]
        full, *values = _measured(model, examples, lists, measure, "g_search")
        if not full > 0:
            raise ProbeError(f"g_search: the full measure is {full:.4g}; it must be above 0")
        good = [
            level
            for level, value in zip(tried, values, strict=True)
            if value >= (1 - epsilon) * full
        ]
        rates.append(good[0] if good else rates[-1])
    return schedule(rates, score)


def _measured(
    model: VideoModel,
    examples: Sequence[Example],
    ablations: Sequence[Any],
    measure: Callable[..., float] | None,
    owner: str,
) -> list[float]:
    """Mean over examples of the measure: untouched, then of each ablation."""
    each = [model.sweep(x, ablations, measure)["value"].to_numpy(float) for x in examples]
    if not each:
        raise ProbeError(f"{owner}: there is no calibration example")
    return np.mean(each, axis=0).tolist()


g_search.__dict__["card"] = Card(
    f"G-Search, of {PAPER}",
    note="searched in Python on examples; schedule(rates) is what it finds. No code is published: "
    "one rate after the other from a list of levels is our reading",
)
