"""Weights against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.ablate.reduction.build import Step, weights
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.merge import Merge
from probe.ablate.reduction.pool import Pool
from probe.ablate.reduction.weights import Weights


def random(out: int, size: int, seed: int, share: float = 0.3) -> Weights:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(out, size)) * (rng.random((out, size)) < share)
    return Weights.of_dense(matrix, rng.permutation(size)[:out], rng.random(out) + 1)


@pytest.mark.parametrize("seed", range(5))
def test_a_product_is_that_of_the_dense_matrices(seed: int) -> None:
    first, second = random(7, 11, seed), random(4, 7, seed + 100)

    product = second @ first

    np.testing.assert_allclose(product.dense(), second.dense() @ first.dense(), atol=1e-14)
    np.testing.assert_array_equal(product.anchor, first.anchor[second.anchor])
    np.testing.assert_array_equal(product.mass, second.mass)
    entries = list(zip(product.row.tolist(), product.col.tolist(), strict=True))
    assert len(set(entries)) == len(entries)


@pytest.mark.parametrize("seed", range(3))
def test_a_product_with_a_selection_is_that_of_the_dense_matrices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chosen = Weights.selection(rng.permutation(11)[:7], 11, rng.random(11))
    other = random(4, 7, seed)
    after = Weights.selection([2, 0], 4)

    np.testing.assert_allclose((other @ chosen).dense(), other.dense() @ chosen.dense())
    np.testing.assert_allclose((after @ other).dense(), after.dense() @ other.dense())
    assert (Weights.selection([3, 1], 7) @ chosen).is_selection


def test_products_are_associative() -> None:
    a, b, c = random(9, 12, 0), random(6, 9, 1), random(3, 6, 2)

    np.testing.assert_allclose(((c @ b) @ a).dense(), (c @ (b @ a)).dense(), atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_application_is_the_dense_product(dtype: torch.dtype) -> None:
    w = random(5, 9, 0)
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(0)).to(dtype)

    y = w.apply(x)

    expected = torch.as_tensor(w.dense()) @ x.double()
    tolerance = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 0.05}[dtype]
    assert y.dtype == dtype
    assert (y.double() - expected).abs().max() < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_selection_moves_bits(dtype: torch.dtype) -> None:
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    w = Weights.selection([8, 0, 3], 9)

    assert w.is_selection and not w.is_identity
    assert torch.equal(w.apply(x), x[[8, 0, 3]])
    assert Weights.selection(np.arange(9), 9).is_identity


@pytest.mark.parametrize(
    "other",
    [
        Weights.of_rows([(0, [0], [0.5], 1), (1, [1], [1.0], 1)], 3),
        Weights.of_rows([(0, [1], [1.0], 1), (1, [0], [1.0], 1)], 3),
        Weights.of_rows([(0, [0, 1], [0.5, 0.5], 2)], 3),
    ],
)
def test_scaled_moved_and_merged_rows_are_no_selection(other: Weights) -> None:
    assert not other.is_selection
    assert not other.is_identity


def test_gain_and_coverage_are_row_and_column_sums() -> None:
    w = random(5, 9, 3)

    np.testing.assert_allclose(w.gain, w.dense().sum(1), atol=1e-14)
    np.testing.assert_allclose(w.coverage, w.dense().sum(0), atol=1e-14)
    assert Weights.selection([1], 3).coverage.tolist() == [0, 1, 0]


def test_raster_and_take_permute_rows_of_all_fields() -> None:
    w = random(5, 9, 4)
    order = np.argsort(w.anchor)

    np.testing.assert_array_equal(w.raster().dense(), w.dense()[order])
    np.testing.assert_array_equal(w.raster().anchor, np.sort(w.anchor))
    np.testing.assert_array_equal(w.raster().mass, w.mass[order])
    some = np.array([4, 1])
    np.testing.assert_array_equal(w.take(some).dense(), w.dense()[some])
    assert w.take(np.zeros(0, np.int64)).dense().shape == (0, 9)


def test_within_places_columns_and_anchors() -> None:
    w, places = random(2, 3, 5), np.array([7, 0, 4])
    expected = np.zeros((2, 9))
    expected[:, places] = w.dense()

    wide = w.within(places, 9)

    np.testing.assert_array_equal(wide.dense(), expected)
    np.testing.assert_array_equal(wide.anchor, places[w.anchor])


def test_a_stack_has_the_rows_of_its_parts() -> None:
    parts = [random(2, 6, 6), random(3, 6, 7), Weights.selection([], 6)]

    stacked = Weights.stack(parts)

    np.testing.assert_array_equal(stacked.dense(), np.concatenate([p.dense() for p in parts]))
    np.testing.assert_array_equal(stacked.mass, np.concatenate([p.mass for p in parts]))


def test_steps_in_a_row_are_a_product() -> None:
    x = torch.randn(2, 4, 4, 5, generator=torch.Generator().manual_seed(0))
    c = Candidates.grid(x)
    first = Step(pool=Pool(out=(None, 2, 2)))
    second = Step(keep_tokens=3, rest=Merge())

    both = weights([first, second], c)

    w = weights([first], c)
    after = weights([second], c.after(w))
    np.testing.assert_allclose(both.dense(), after.dense() @ w.dense(), atol=1e-15)
    np.testing.assert_allclose(both.apply(c.x), after.apply(w.apply(c.x)), atol=1e-6)
    assert weights([], c).is_identity
    assert weights([Step()], c).is_identity
