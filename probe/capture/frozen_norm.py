"""A root-mean-square norm as the linear map that it is once its scale is frozen."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probe.errors import ProbeError


def gain(norm: nn.Module, width: int) -> Float[Tensor, " channel"]:
    """What the norm multiplies each channel with, beside the scale; float32 on its device.

    It is read off the norm's own output, since families write it in different ways (weight, or
    1 + weight).

    Raises:
        ProbeError: not a root-mean-square norm.
    """
    weight = next(norm.parameters())
    probe = torch.ones(2, width, dtype=weight.dtype, device=weight.device)
    probe[1, ::2] = -2
    with torch.no_grad():
        out = norm.forward(probe).float()
    scales = scale(norm, probe[0]), scale(norm, probe[1])
    found = out[0] / scales[0]
    if not torch.allclose(out[1], probe[1].float() * found * scales[1], rtol=2e-2, atol=1e-3):
        raise ProbeError(
            f"contributions: {type(norm).__name__} is not a root-mean-square norm; its "
            "contributions do not sum to the logit"
        )
    return found


def scale(norm: nn.Module, x: Float[Tensor, " channel"]) -> float:
    """The factor 1 / root mean square that the norm would use for this vector."""
    for name in ("variance_epsilon", "eps"):
        if hasattr(norm, name):
            epsilon = float(getattr(norm, name))
            return float(torch.rsqrt(x.double().square().mean() + epsilon))
    raise ProbeError(
        f"contributions: {type(norm).__name__} states no epsilon; it is not a root-mean-square norm"
    )
