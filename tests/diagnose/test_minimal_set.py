"""Searches for small sets against every subset there is."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from probe.diagnose.minimal_set import backward, bisect, forward, rungs, scan

N = 7


def subsets():
    return [np.array(c, dtype=np.int64) for n in range(N + 1) for c in combinations(range(N), n)]


def additive(seed: int):
    """Enough while a sum of weights is above a threshold that everything reaches; more is more."""
    rng = np.random.default_rng(seed)
    weights = rng.random(N)
    need = rng.uniform(-0.1, 0.9) * weights.sum()
    return weights, lambda kept: float(weights[kept].sum() - need)


def rugged(seed: int):
    """Any value for any set; all together are enough."""
    rng = np.random.default_rng(seed)
    values = {tuple(kept): rng.normal() for kept in subsets()}
    values[tuple(range(N))] = 1.0
    return lambda kept: values[tuple(np.sort(kept))]


def smallest(margin) -> int:
    return min(len(kept) for kept in subsets() if margin(kept) > 0)


@pytest.mark.parametrize("seed", range(20))
def test_where_more_is_more_every_search_finds_the_smallest(seed: int) -> None:
    weights, margin = additive(seed)
    order = np.argsort(-weights)
    assert bisect(margin, order, rungs(N)) == smallest(margin)
    assert scan(margin, order, rungs(N)) == (smallest(margin), smallest(margin))
    single = [np.array([n]) for n in range(N)]
    assert len(forward(margin, single)) == smallest(margin)
    assert len(backward(margin, np.arange(N), weights, [])) == smallest(margin)


@pytest.mark.parametrize("seed", range(20))
def test_where_it_is_not_what_is_found_is_enough_and_no_member_can_go(seed: int) -> None:
    margin = rugged(seed)
    rng = np.random.default_rng(seed)
    order, groups = rng.permutation(N), [np.array([0, 1, 2]), np.array([3, 4]), np.array([5, 6])]
    joined = forward(margin, groups)
    assert margin(joined) > 0
    for start in (np.arange(N), joined):
        kept = backward(margin, start, rng.random(N), groups)
        assert margin(kept) > 0 and len(kept) >= smallest(margin)
        assert all(margin(np.delete(kept, place)) <= 0 for place in range(len(kept)))
    enough = [margin(order[:n]) > 0 for n in range(N + 1)]
    size = bisect(margin, order, rungs(N))
    assert enough[size] and (size == 0 or not enough[size - 1])
    lasting, least = scan(margin, order, rungs(N))
    assert least == enough.index(True)
    assert all(enough[lasting:]) and (lasting == 0 or not enough[lasting - 1])


def test_rungs_grow_by_the_factor_and_by_one_at_least() -> None:
    sizes = rungs(576, 1.2)
    assert sizes[:8] == [0, 1, 2, 3, 4, 5, 6, 7] and sizes[-1] == 576
    steps = np.diff(sizes)
    assert (steps >= 1).all()
    assert all(b <= max(a + 1, 1.2 * a) for a, b in pairwise(sizes))
    assert rungs(5) == [0, 1, 2, 3, 4, 5]
