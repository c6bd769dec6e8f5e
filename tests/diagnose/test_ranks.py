"""Rank correlations against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from probe.diagnose import ranks


@pytest.mark.parametrize("count", [3, 17, 300, 1100])
def test_tau_b_is_scipys(count: int) -> None:
    rng = np.random.default_rng(count)
    values = rng.integers(0, max(3, count // 4), (4, count)).astype(float)  # many ties
    found = ranks.tau_b(values)
    for i in range(4):
        for j in range(4):
            expected = stats.kendalltau(values[i], values[j]).statistic
            assert found[i, j] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("count", [5, 1100])
def test_a_constant_row_has_no_tau(count: int) -> None:
    values = np.stack([np.ones(count), np.arange(count), -np.arange(count)]).astype(float)
    found = ranks.tau_b(values)
    assert np.isnan(found[0]).all() and np.isnan(found[:, 0]).all()
    np.testing.assert_allclose(found[1:, 1:], [[1, -1], [-1, 1]])


def test_partial_tau_removes_what_a_third_ranking_makes() -> None:
    # Kendall's own formula, by hand: (.5 - .6 * .4) / sqrt((1 - .36) (1 - .16)).
    both = np.array([[1.0, 0.5], [0.5, 1.0]])
    found = ranks.partial_tau(both, np.array([0.6, 0.4]))
    assert found[0, 1] == pytest.approx(0.26 / np.sqrt(0.64 * 0.84))
    assert np.isnan(ranks.partial_tau(both, np.array([1.0, 0.4]))[0, 1])


def test_spearman_is_scipys_row_by_row() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 9, (2, 3, 40)).astype(float)
    other = rng.integers(0, 9, 40).astype(float)
    found = ranks.spearman(values, other)
    for index in np.ndindex(2, 3):
        expected = stats.spearmanr(values[index], other).statistic
        assert found[index] == pytest.approx(expected, abs=1e-12)


def test_spearman_says_nan_where_there_are_no_ranks() -> None:
    line = np.arange(5.0)
    assert np.isnan(ranks.spearman(np.ones(5), line))
    assert np.isnan(ranks.spearman(line, np.ones(5)))
    assert np.isnan(ranks.spearman(line[:2], line[:2]))
    assert np.isnan(ranks.spearman(np.array([1, 2, np.nan, 3, 4]), line))
