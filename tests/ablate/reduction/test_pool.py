"""Pooling against torch's, and along the list."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from probe.ablate.reduction.budget import Count
from probe.ablate.reduction.build import Step, weights
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Budget, Pooling, Score
from probe.ablate.reduction.pool import Pool
from probe.ablate.reduction.pool_dct import PoolDCT
from probe.ablate.reduction.pool_list import FrameMean, Pool1D, SizedPool, near_square
from probe.ablate.reduction.segment import PerFrame
from probe.ablate.reduction.weights import Weights
from probe.errors import ProbeError

OUTS = [(6, 7, 9), (3, 7, 9), (6, 4, 5), (4, 3, 2), (1, 1, 1), (6, 1, 9)]


@dataclass(frozen=True)
class Channel(Score):
    """One channel of the features as score."""

    number: int = 0

    def score(self, c: Candidates) -> Tensor:
        return c.x[:, self.number]


def field(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 7, 9, 4, generator=generator, dtype=torch.float64)


def pooled(pool: Pooling, x: Tensor, **more: object) -> tuple[Tensor, Weights]:
    c = replace(Candidates.grid(x), **more)
    w = pool.weights(c)
    assert len(np.unique(w.anchor)) == len(w)
    return w.apply(c.x), w


def volume(x: Tensor) -> Tensor:
    """[1, channel, time, row, col], as torch has it."""
    return x.permute(3, 0, 1, 2)[None]


def listed(y: Tensor) -> Tensor:
    return y[0].flatten(1).T


@pytest.mark.parametrize("out", OUTS)
def test_means_are_those_of_adaptive_pooling(out: tuple[int, int, int]) -> None:
    y, w = pooled(Pool(out=out), field())

    torch.testing.assert_close(y, listed(functional.adaptive_avg_pool3d(volume(field()), out)))
    np.testing.assert_allclose(w.gain, 1)
    np.testing.assert_allclose(w.mass.sum(), 6 * 7 * 9)


@pytest.mark.parametrize("kernel", [(1, 1, 1), (2, 2, 2), (1, 3, 3), (4, 5, 9)])
def test_kernels_are_those_of_average_pooling_with_partial_ends(kernel) -> None:
    y, w = pooled(Pool(kernel=kernel), field())

    expected = functional.avg_pool3d(
        volume(field()), kernel, ceil_mode=True, count_include_pad=False
    )
    torch.testing.assert_close(y, listed(expected))
    np.testing.assert_allclose(w.mass, (w.dense() > 0).sum(1))


@pytest.mark.parametrize("out", OUTS)
def test_bilinear_is_interpolation_without_aligned_corners(out: tuple[int, int, int]) -> None:
    y, w = pooled(Pool(out=out, how="bilinear"), field())

    expected = functional.interpolate(volume(field()), out, mode="trilinear", align_corners=False)
    torch.testing.assert_close(y, listed(expected))
    np.testing.assert_allclose(w.gain, 1)


@pytest.mark.parametrize("out", OUTS)
@pytest.mark.parametrize("temp", [1.0, 0.1])
def test_weighted_means_are_softmax_in_each_bin(out: tuple[int, int, int], temp: float) -> None:
    x = field()
    y, w = pooled(Pool(out=out, how="weighted", score=Channel(), temp=temp), x)

    e = (x[..., :1] / temp).exp()
    top, total = (functional.adaptive_avg_pool3d(volume(v), out) for v in (x * e, e))
    torch.testing.assert_close(y, listed(top / total))
    np.testing.assert_allclose(w.gain, 1)


def test_equal_scores_are_the_plain_mean() -> None:
    x = field()
    x[..., 0] = 3.0

    weighted, _ = pooled(Pool(out=(4, 3, 2), how="weighted", score=Channel()), x)

    torch.testing.assert_close(weighted, pooled(Pool(out=(4, 3, 2)), x)[0])
    assert Pool(out=(4, 3, 2), how="weighted", score=Channel()).leaves() == (Channel(),)


def test_large_scores_do_not_overflow() -> None:
    x = field()
    x[..., 0] *= 1e4

    y, _ = pooled(Pool(out=(1, 1, 1), how="weighted", score=Channel()), x)

    torch.testing.assert_close(y[0], x.reshape(-1, 4)[x[..., 0].argmax()])


@pytest.mark.parametrize(
    "pool",
    [
        Pool(out=(None, None, None)),
        Pool(out=(6, 7, 9), how="bilinear"),
        Pool(kernel=(1, 1, 1)),
        Pool(out=(6, 7, 9), how="weighted", score=Channel()),
        PoolDCT((None, 7, None)),
        PoolDCT((6, 7, 9), gain="legacy"),
        Pool1D(kernel=1),
        Pool1D(out=378),
        SizedPool(Count(63)),
    ],
    ids=str,
)
def test_the_same_size_is_the_identity(pool: Pooling) -> None:
    assert weights([Step(pool=pool)], Candidates.grid(field())).is_identity


@pytest.mark.parametrize("how", ["mean", "bilinear"])
def test_a_place_is_the_centre_of_its_bin(how: str) -> None:
    _, w = pooled(Pool(out=(2, 3, 3), how=how), field())
    _, first = pooled(Pool(out=(2, 3, 3), how=how, anchor="first"), field())

    # Bins of 6 frames 0-2, 3-5; of 7 rows 0-2, 2-4, 4-6; of 9 columns 0-2, 3-5, 6-8.
    expected = [t * 63 + r * 9 + k for t in (1, 4) for r in (1, 3, 5) for k in (1, 4, 7)]
    assert w.anchor.tolist() == expected
    expected = [t * 63 + r * 9 + k for t in (0, 3) for r in (0, 2, 4) for k in (0, 3, 6)]
    assert first.anchor.tolist() == expected


@pytest.mark.parametrize("pool", [Pool(out=(3, 4, 5)), Pool(out=(2, 4, 4), how="bilinear")])
def test_pooling_is_linear_and_leaves_a_constant_field(pool: Pool) -> None:
    a, b = field(0), field(1)

    both = pooled(pool, a + b)[0]

    torch.testing.assert_close(both, pooled(pool, a)[0] + pooled(pool, b)[0])
    constant = pooled(pool, torch.full((6, 7, 9, 2), 1.7, dtype=torch.float64))[0]
    torch.testing.assert_close(constant, torch.full_like(constant, 1.7))


def test_two_smaller_steps_are_one_larger() -> None:
    x = torch.randn(2, 24, 24, 3, generator=torch.Generator().manual_seed(0))
    c = Candidates.grid(x)

    steps = [Step(pool=Pool(out=(None, n, n))) for n in (12, 6)]
    once = [Step(pool=Pool(out=(None, 6, 6)))]

    np.testing.assert_allclose(weights(steps, c).dense(), weights(once, c).dense(), atol=1e-15)


def test_a_second_pool_sees_the_grid_of_the_first() -> None:
    c = Candidates.grid(torch.randn(4, 8, 8, 3, generator=torch.Generator().manual_seed(0)))

    after = c.after(weights([Step(pool=Pool(out=(2, 4, 4)))], c))

    assert len(after.frames) == 2
    assert len(after) == 32
    assert weights(
        [Step(pool=Pool(out=(2, 4, 4))), Step(pool=Pool(out=(1, 2, 2)))], c
    ).gain.shape == (4,)


def test_mass_of_a_shared_token_is_split() -> None:
    mass = np.random.default_rng(0).random(378) + 0.5

    _, w = pooled(Pool(out=(4, 3, 2)), field(), mass=mass)

    share = mass / (w.dense() > 0).sum(0)
    np.testing.assert_allclose(w.mass, (w.dense() > 0) @ share)


@pytest.mark.parametrize("kernel", [2, 3, 5, 378, 1000])
def test_runs_of_the_list_cross_ends_of_rows(kernel: int) -> None:
    y, w = pooled(Pool1D(kernel), field())

    flat = volume(field()).flatten(2)
    expected = functional.avg_pool1d(
        flat, min(kernel, 378), ceil_mode=True, count_include_pad=False
    )
    torch.testing.assert_close(y, listed(expected))
    assert w.anchor.tolist() == list(range(0, 378, kernel))


def test_so_many_runs_are_adaptive() -> None:
    y, w = pooled(Pool1D(out=113, anchor="centre"), field())

    flat = volume(field()).flatten(2)
    torch.testing.assert_close(y, listed(functional.adaptive_avg_pool1d(flat, 113)))
    assert w.dense()[np.arange(113), w.anchor].all()


def test_the_carrier_of_a_frame_is_its_mean_at_its_end() -> None:
    x = field()
    y, w = pooled(FrameMean(), x)
    kept, v = pooled(FrameMean(keep=True), x)

    torch.testing.assert_close(y, x.reshape(6, 63, 4).mean(1))
    assert w.anchor.tolist() == list(range(62, 378, 63))
    assert w.mass.tolist() == [63.0] * 6
    frames = kept.reshape(6, 63, 4)
    assert torch.equal(frames[:, :-1], x.reshape(6, 63, 4)[:, :-1])
    torch.testing.assert_close(frames[:, -1], y)
    assert v.mass.tolist() == [1.0] * 378


@dataclass(frozen=True)
class Given(Budget):
    """A number of tokens for each frame."""

    numbers: tuple[int, ...]

    def counts(self, c: Candidates, groups: list[np.ndarray], score: np.ndarray) -> list[int]:
        return list(self.numbers)


@pytest.mark.parametrize("how", ["bilinear", "mean"])
def test_frames_are_resized_to_their_budget(how: str) -> None:
    x = field()
    y, w = pooled(SizedPool(Given((0, 1, 12, 63, 30, 0)), how=how), x)

    sizes = [(1, (1, 1)), (2, (4, 3)), (3, (7, 9)), (4, (6, 5))]
    expected = []
    for frame, size in sizes:
        plane = x[frame].permute(2, 0, 1)[None]
        if how == "mean":
            small = functional.adaptive_avg_pool2d(plane, size)
        else:
            small = functional.interpolate(plane, size, mode="bilinear", align_corners=False)
        expected.append(listed(small))
    torch.testing.assert_close(y, torch.cat(expected))
    assert np.unique(w.anchor // 63).tolist() == [1, 2, 3, 4]
    assert len(pooled(SizedPool(Given((0,) * 6)), x)[1]) == 0


def test_near_squares_fit() -> None:
    by_hand = {1: (1, 1), 2: (2, 1), 3: (2, 1), 4: (2, 2), 6: (3, 2), 8: (3, 2), 12: (4, 3)}
    for count, size in (by_hand | {55: (7, 7), 63: (7, 9), 90: (7, 9), 0: (0, 0)}).items():
        assert near_square(count, 7, 9) == size


def test_pooling_of_each_frame_by_itself() -> None:
    c = Candidates.grid(field())

    each = weights([Step(segment=PerFrame(), pool=Pool(out=(1, 3, 3)))], c)

    whole = weights([Step(pool=Pool(out=(6, 3, 3)))], c)
    np.testing.assert_allclose(each.dense(), whole.dense())
    np.testing.assert_array_equal(each.anchor, whole.anchor)


@pytest.mark.parametrize("pool", [Pool(out=(6, 8, 9)), PoolDCT((7, 7, 9)), Pool1D(out=379)])
def test_more_tokens_than_there_are_are_refused(pool: Pooling) -> None:
    with pytest.raises(ProbeError, match="makes fewer") as error:
        pool.weights(Candidates.grid(field()))
    assert "\n" not in str(error.value)


def test_what_is_no_grid_is_refused() -> None:
    c = Candidates.grid(field())
    c = c.take(np.arange(1, 378))

    for pool in (Pool(out=(1, 1, 1)), PoolDCT((1, 1, 1)), SizedPool(Count(4))):
        with pytest.raises(ProbeError, match="no full grid"):
            pool.weights(c)
    assert len(Pool1D(4).weights(c)) == 95


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pool(),
        lambda: Pool(out=(1, 1, 1), kernel=(1, 1, 1)),
        lambda: Pool(out=(1, 1)),
        lambda: Pool(out=(1, 0, 1)),
        lambda: Pool(out=(1, 1, 1), how="max"),
        lambda: Pool(kernel=(1, 1, 1), how="bilinear"),
        lambda: Pool(out=(1, 1, 1), how="weighted"),
        lambda: Pool(out=(1, 1, 1), score=Channel()),
        lambda: Pool(out=(1, 1, 1), how="weighted", score=Channel(), temp=0.0),
        lambda: Pool(out=(1, 1, 1), anchor="last"),
        lambda: Pool1D(),
        lambda: Pool1D(2, out=3),
        lambda: Pool1D(0),
        lambda: Pool1D(2, anchor="last"),
        lambda: SizedPool(Count(3), how="max"),
        lambda: PoolDCT((1, 1)),
        lambda: PoolDCT((1, 1, 0)),
        lambda: PoolDCT((1, 1, 1), gain="half"),
    ],
)
def test_bad_parameters_are_refused_in_one_line(make) -> None:
    with pytest.raises(ProbeError) as error:
        make()
    assert "\n" not in str(error.value)
