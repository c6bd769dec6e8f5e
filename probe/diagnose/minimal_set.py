"""Searches for the smallest set that keeps something, over any function of sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

Index = Int[np.ndarray, " _"]
Margin = Callable[[Index], float]
"""Of a set, by the sorted numbers of its members; above zero the set is enough."""


def rungs(count: int, ratio: float = 1.0) -> list[int]:
    """Sizes 0 to `count`; from one to the next at most by this factor, and at least by one."""
    sizes = [0]
    while sizes[-1] < count:
        sizes.append(min(count, max(sizes[-1] + 1, int(sizes[-1] * ratio))))
    return sizes


def bisect(margin: Margin, order: Index, sizes: Sequence[int]) -> int:
    """A size at which the first members of an order are enough, while the next smaller is not.

    Where enough once is enough with more, it is the smallest. The largest size counts as enough.

    Args:
        margin: of a set.
        order: members, the first to keep first.
        sizes: rising.
    """
    low, high = -1, len(sizes) - 1  # sizes[high] is enough, sizes[low] is not
    while high - low > 1:
        middle = (low + high) // 2
        enough = margin(np.sort(order[: sizes[middle]])) > 0
        low, high = (low, middle) if enough else (middle, high)
    return sizes[high]


def scan(margin: Margin, order: Index, sizes: Sequence[int]) -> tuple[int, int]:
    """Every size: the smallest from which on all are enough, and the smallest that is at all.

    Args:
        margin, order, sizes: as in `bisect`.
    """
    enough = [margin(np.sort(order[:size])) > 0 for size in sizes[:-1]] + [True]
    lasting = len(enough) - int(np.argmin(enough[::-1])) if not all(enough) else 0
    return sizes[lasting], sizes[int(np.argmax(enough))]


def forward(margin: Margin, groups: Sequence[Index]) -> Index:
    """Greedy from nothing: whole groups join, each time the one that leaves the largest margin.

    Args:
        margin: of a set.
        groups: members of each; all of them together are enough.

    Returns:
        A set that is enough, sorted.
    """
    kept, left = np.zeros(0, np.int64), list(groups)
    while left and margin(kept) <= 0:
        joined = [np.union1d(kept, group) for group in left]
        best = int(np.argmax([margin(one) for one in joined]))
        kept = joined[best]
        left.pop(best)
    return kept


def backward(margin: Margin, start: Index, values: np.ndarray, groups: Sequence[Index]) -> Index:
    """Greedy from a set that is enough: what can leave does, least valuable first.

    Whole groups first, then runs of members, half as long each time, down to single ones, until
    no single member can leave any more (delta debugging, Zeller and Hildebrandt 2002).

    Args:
        margin: of a set.
        start: a set that is enough.
        values: [member], of every member there is; low ones are tried first.
        groups: members of each.

    Returns:
        A set that is enough and of which no member can be left out, sorted. Another set of another
        kind may be smaller.
    """
    kept = np.unique(np.asarray(start, dtype=np.int64))
    if margin(np.zeros(0, np.int64)) > 0:
        return np.zeros(0, np.int64)
    worth = [float(values[group].sum()) for group in groups]
    for place in np.argsort(worth, kind="stable"):
        kept = _without(margin, kept, groups[place])
    size = max(1, len(kept) // 2)
    while True:
        before = len(kept)
        rising = kept[np.argsort(values[kept], kind="stable")]
        for begin in range(0, before, size):
            left = _without(margin, kept, rising[begin : begin + size])
            if size > 1 and len(left) == len(kept):
                break  # what follows is worth more
            kept = left
        if size == 1 and len(kept) == before:
            return kept
        size = max(1, size // 2)


def _without(margin: Margin, kept: Index, gone: Index) -> Index:
    """The set without some members, where that is enough."""
    left = np.setdiff1d(kept, gone)
    return left if len(left) < len(kept) and margin(left) > 0 else kept
