"""Low-pass in the frequency domain: a smaller grid with the low frequencies of the larger one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Pooling
from probe.ablate.reduction.pool import adaptive, separable
from probe.ablate.reduction.weights import Weights
from probe.errors import ProbeError


@dataclass(frozen=True)
class PoolDCT(Pooling):
    """Orthonormal DCT-II along each axis, its low block, and the inverse at the smaller size.
    Fourier-VLM (Wang et al., 2025); along time as well where `out` says so.

    An axis that keeps its size is left alone. Outputs take the places of the tokens in the centre
    of the bins that adaptive average pooling would have.

    Attributes:
        out: (frames, rows, columns) of the result; None leaves an axis as it is.
        gain: "unit" leaves a constant field as it is; "legacy" multiplies it by the square root of
            inputs per output (2 from 24 x 24 to 12 x 12), as released weights were trained.
    """

    out: tuple[int | None, ...]
    gain: str = "unit"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.out) != 3 or any(n is not None and n < 1 for n in self.out):
            raise ProbeError(
                f"{self.kind}: {self.out} are not three counts (frames, rows, columns)"
            )
        if self.gain not in ("unit", "legacy"):
            raise ProbeError(f'{self.kind}: gain="{self.gain}" is not "unit" or "legacy"')

    def weights(self, c: Candidates) -> Weights:
        axes, bins = [], []
        for n, wanted, name in zip(c.cells, self.out, ("frames", "rows", "columns"), strict=True):
            m = n if wanted is None else wanted
            if m > n:
                raise ProbeError(
                    f"{self.kind}: {name} cannot go from {n} to {m}; a low-pass makes fewer, so "
                    f"ask for at most {n}"
                )
            axes.append(low_pass(n, m, self.gain))
            bins.append(adaptive(n, m))
        return separable(axes, bins, c.mass)


def cosines(n: int) -> Float[np.ndarray, "frequency n"]:
    """The orthonormal DCT-II."""
    matrix = np.cos(np.pi / n * np.arange(n)[:, None] * (np.arange(n) + 0.5))
    matrix[0] *= 0.5**0.5
    return matrix * (2 / n) ** 0.5


def low_pass(n: int, m: int, gain: str) -> Float[np.ndarray, "out n"]:
    """From n samples the m whose transform is the low end of theirs."""
    if m == n:
        return np.eye(n)
    matrix = cosines(m).T @ cosines(n)[:m]
    return matrix * (m / n) ** 0.5 if gain == "unit" else matrix
