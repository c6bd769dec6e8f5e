"""The matrix of a linear module, also where it is not stored as one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


def matrix(module: nn.Module, width: int) -> Float[Tensor, "out {width}"]:
    """What a linear module multiplies with.

    Weights of a plain layer are taken as they are. Others (quantised, or with a low-rank adapter
    beside them) are run on the unit vectors, which is exact up to the rounding of the module.
    """
    if type(module) is nn.Linear:
        return module.weight.detach()
    some = next(p for p in module.parameters() if p.is_floating_point())
    with torch.no_grad():
        unit = torch.eye(width, dtype=some.dtype, device=some.device)
        return (module(unit) - module(torch.zeros_like(unit[:1]))).T
