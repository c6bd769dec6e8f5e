"""Permutation tests that exchange two conditions in whole clusters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from probe.errors import ProbeError

EXACT = 14
"""With this many clusters or fewer all exchanges are tried (2^13, as one sign is free)."""

_CELLS = 4_000_000


def sign_flips(
    sums: Float[np.ndarray, " cluster"], *, permutations: int, seed: int
) -> tuple[float, bool]:
    """Two-sided p of a sum of paired differences, when each cluster may have been exchanged.

    Clusters whose differences sum to 0 change nothing and are left out, which makes more tests
    exact.

    Args:
        sums: of the differences in each cluster.
        permutations: drawn where there are too many exchanges to try all.

    Returns:
        p, and whether all exchanges were tried. Where they were drawn what was observed counts as
        one more (Phipson and Smyth 2010), so that p is never 0.

    Raises:
        ProbeError: fewer than 100 permutations.
    """
    if permutations < 100:
        raise ProbeError(f"permutations must be 100 or more, not {permutations}")
    sums = sums[np.abs(sums) > 1e-12 * np.abs(sums).max(initial=0.0)]
    if not len(sums):
        return 1.0, True
    # Ties are then found whatever the unit.
    sums = sums / np.abs(sums).max()
    observed = abs(sums.sum())
    least = observed - 1e-9 * max(1.0, observed)
    exact = len(sums) <= EXACT
    rows = max(1, _CELLS // len(sums))
    flips = _all(len(sums), rows) if exact else _some(len(sums), permutations, seed, rows)
    hits = sum(int((np.abs(sums.sum() - 2 * (flip @ sums)) >= least).sum()) for flip in flips)
    if exact:
        return hits / 2 ** (len(sums) - 1), True
    return (1 + hits) / (1 + permutations), False


def _all(clusters: int, rows: int) -> Iterator[Float[np.ndarray, "permutation cluster"]]:
    """Every exchange that leaves the last cluster as it is."""
    for start in range(0, 2 ** (clusters - 1), rows):
        codes = np.arange(start, min(start + rows, 2 ** (clusters - 1)))
        yield (codes[:, None] >> np.arange(clusters) & 1).astype(float)


def _some(
    clusters: int, permutations: int, seed: int, rows: int
) -> Iterator[Float[np.ndarray, "permutation cluster"]]:
    rng = np.random.default_rng([seed, 1])
    for start in range(0, permutations, rows):
        count = min(rows, permutations - start)
        yield rng.integers(2, size=(count, clusters), dtype=np.int8).astype(float)
