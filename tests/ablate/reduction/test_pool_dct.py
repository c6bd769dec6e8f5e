"""The low-pass against SciPy's transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.ablate.reduction.build import Step, weights
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.pool_dct import PoolDCT, cosines
from probe.ablate.reduction.segment import PerFrame

scipy_fft = pytest.importorskip("scipy.fft")

OUTS = [(5, 3, 4), (5, 1, 1), (2, 3, 4), (1, 6, 8), (5, 5, 7), (3, 6, 8)]


def clip() -> Candidates:
    x = torch.randn(5, 6, 8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Candidates.grid(x)


@pytest.mark.parametrize("out", OUTS)
@pytest.mark.parametrize("gain", ["unit", "legacy"])
def test_the_low_block_goes_back_at_the_smaller_size(out: tuple[int, ...], gain: str) -> None:
    c = clip()

    w = PoolDCT(out, gain).weights(c)

    axes = (0, 1, 2)
    low = scipy_fft.dctn(c.x.numpy().reshape(5, 6, 8, 3), axes=axes, norm="ortho")
    expected = scipy_fft.idctn(low[tuple(map(slice, out))], axes=axes, norm="ortho")
    scale = np.sqrt(np.prod(out) / 240) if gain == "unit" else 1.0
    np.testing.assert_allclose(w.apply(c.x).numpy(), scale * expected.reshape(-1, 3), atol=1e-12)
    assert len(np.unique(w.anchor)) == len(w) == np.prod(out)
    np.testing.assert_allclose(w.mass.sum(), 240)


@pytest.mark.parametrize("out", OUTS)
def test_rows_are_orthonormal_and_energy_is_that_of_the_low_block(out: tuple[int, ...]) -> None:
    c = clip()

    w = PoolDCT(out, "legacy").weights(c)

    np.testing.assert_allclose(w.dense() @ w.dense().T, np.eye(len(w)), atol=1e-12)
    low = scipy_fft.dctn(c.x.numpy().reshape(5, 6, 8, 3), axes=(0, 1, 2), norm="ortho")
    energy = (low[tuple(map(slice, out))] ** 2).sum()
    np.testing.assert_allclose((w.apply(c.x) ** 2).sum().item(), energy)


def test_gain_of_a_constant_field() -> None:
    c = Candidates.grid(torch.full((1, 24, 24, 2), 1.5, dtype=torch.float64))

    unit, legacy = (PoolDCT((1, 12, 12), gain).weights(c) for gain in ("unit", "legacy"))

    np.testing.assert_allclose(unit.gain, 1)
    np.testing.assert_allclose(legacy.gain, 2)
    torch.testing.assert_close(unit.apply(c.x), torch.full((144, 2), 1.5, dtype=torch.float64))


def test_the_transform_is_that_of_scipy() -> None:
    for n in (1, 2, 7):
        np.testing.assert_allclose(
            cosines(n), scipy_fft.dct(np.eye(n), axis=0, norm="ortho"), atol=1e-14
        )


def test_without_the_time_axis_every_frame_is_by_itself() -> None:
    c = clip()

    whole = weights([Step(pool=PoolDCT((None, 3, 4)))], c)

    each = weights([Step(segment=PerFrame(), pool=PoolDCT((None, 3, 4)))], c)
    np.testing.assert_allclose(whole.dense(), each.dense(), atol=1e-15)
    assert (c.frame[whole.anchor][whole.row] == c.frame[whole.col]).all()
