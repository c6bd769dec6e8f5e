"""How large an error may be, by the dtype a model computes in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Limits:
    """Limits of one model; differences of logits are relative to the largest logit.

    Attributes:
        about: the dtype, and what the weights are stored in.
        sums: attention mass of a row minus 1.
        statistics: mass and attention received against dense weights of the same query and key.
        entropy: the same for entropy, in nats.
        output: attention output against dense weights times values, relative to its largest.
        model_statistics, model_entropy: against a second pass of the model with eager attention;
            every layer adds its rounding.
        logits: two ways to compute the same logits.
        contributions: their sum against the logit, relative to the sum of their sizes.
    """

    about: str
    sums: float
    statistics: float
    entropy: float
    output: float
    model_statistics: float
    model_entropy: float
    logits: float
    contributions: float


def limits(hf: Any) -> Limits:
    """The limits of a model; float32 has 1e-5, more where many layers add up."""
    dtype: torch.dtype = hf.dtype
    depth = max(1.0, hf.config.get_text_config().num_hidden_layers / 4)
    how = getattr(hf.config, "quantization_config", None)
    stored = (
        how.get("quant_method") if isinstance(how, dict) else getattr(how, "quant_method", None)
    )
    about = str(dtype).removeprefix("torch.") + (f", weights in {_text(stored)}" if stored else "")
    if dtype.itemsize >= 4 and not stored:
        return Limits(about, 1e-5, 1e-5, 1e-4, 1e-5, 1e-5 * depth, 1e-4 * depth, 1e-5 * depth, 1e-5)
    # bfloat16 has 8 bits, float16 has 11; weights of 8 bits and fewer compute in one of them.
    half = 1.0 if dtype == torch.bfloat16 or stored else 0.25
    return Limits(
        about, 1e-3, 1e-4, 1e-3, 2e-2 * half, 5e-2 * half, 2e-1 * half, 5e-2 * half, 2e-2 * half
    )


def _text(method: Any) -> str:
    return str(getattr(method, "value", method))
