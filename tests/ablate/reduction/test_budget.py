"""Budgets from sizes: invariants, rounding, and counts as published."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate.reduction.budget import Correct, Count, Equal, Keep, apportioned, rounded
from probe.ablate.reduction.budget_layers import CostTarget, OfOriginal
from probe.ablate.reduction.build import Step, weights
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Budget
from probe.ablate.reduction.segment import PerFrame
from probe.ablate.reduction.split import First


def clip(time: int, rows: int, cols: int) -> Candidates:
    return Candidates.grid(
        torch.randn(time, rows, cols, 2, generator=torch.Generator().manual_seed(0))
    )


def parts(sizes: list[int]) -> tuple[Candidates, list[np.ndarray]]:
    """Groups of these sizes, a group a frame."""
    c = clip(1, 1, sum(sizes))
    frame = np.repeat(np.arange(len(sizes)), sizes)
    c = Candidates(c.x, frame, c.row, c.col, c.position, c.mass)
    return c, np.split(np.arange(len(c)), np.cumsum(sizes)[:-1])


def counts(budget: Budget, sizes: list[int]) -> list[int]:
    c, groups = parts(sizes)
    return budget.counts(c, groups, np.zeros(len(c)))


@pytest.mark.parametrize(
    ("exact", "size", "how", "expected"),
    [
        (28.999999999999996, 100, "floor", 29),
        (28.9, 100, "floor", 28),
        (3.2, 10, "ceil", 4),
        (3.0000000000000004, 10, "ceil", 3),
        (2.5, 10, "round", 2),
        (3.5, 10, "round", 4),
        (2.5, 5, "drop", 3),
        (58.8, 196, "floor", 58),
    ],
)
def test_rounded(exact: float, size: int, how: str, expected: int):
    assert rounded(exact, size, how) == expected


BUDGETS = [
    Keep(0.3),
    Keep(0.3, "round", least=1),
    Keep(0.3, "ceil"),
    Keep(0.3, "floor"),
    Count(4),
    Equal(0.3),
    Equal(0.3, per="frame", rounding="ceil"),
    Equal(0.3, per="pool"),
    Equal(0.3, share=0.4),
    Equal(0.3, block=8, extra=4),
    Correct(0.3),
    OfOriginal(0.3),
    CostTarget(0.5),
]


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("sizes", [[6, 6, 6], [1, 2, 30], [7], [0, 5]])
def test_bounds(budget: Budget, sizes: list[int]):
    found = counts(budget, sizes)
    assert all(isinstance(k, int) and 0 <= k <= n for k, n in zip(found, sizes, strict=True))
    expected = budget.expected(sizes)
    assert expected is None or expected == sum(found)


@pytest.mark.parametrize(
    "budget",
    [Keep(1), Equal(1), Equal(1, per="pool"), Equal(1, per="frame"), Correct(1), OfOriginal(1)],
    ids=str,
)
def test_keep_everything(budget: Budget):
    assert counts(budget, [5, 1, 9]) == [5, 1, 9] and budget.inert


@pytest.mark.parametrize("keep", [0, 0.1, 0.25, 0.37, 0.5, 0.9, 1])
def test_pool_is_the_largest_remainder(keep: float):
    sizes = [5, 9, 3, 14]
    found = counts(Equal(keep, per="pool", rounding="round"), sizes)
    assert sum(found) == round(31 * keep)
    room = [k for k, n in zip(found, sizes, strict=True) if k < n]
    assert not room or max(room) - min(room) <= 1
    assert all(k == n or k >= max(room, default=0) - 1 for k, n in zip(found, sizes, strict=True))


def test_largest_remainder_by_hand():
    """10 seats by 47, 16, 15.8, 12, 6.1, 3.1 of 100: whole parts 4 1 1 1 0 0, remainders
    .7 .6 .58 .2 .61 .31 give the others to the first, the fifth and the second.
    """
    votes = [47, 16, 15.8, 12, 6.1, 3.1]
    caps = [10] * 6
    found = apportioned(votes, 10, caps, spill=False, rounding="largest")
    assert found == [5, 2, 1, 1, 1, 0]
    assert apportioned(votes, 10, caps, spill=False, rounding="floor") == [4, 1, 1, 1, 0, 0]


def test_apportioned_spills_what_a_cap_cuts_off():
    assert apportioned([8, 1, 1], 10, [4, 9, 9], spill=True, rounding="largest") == [4, 3, 3]
    assert apportioned([8, 1, 1], 10, [4, 9, 9], spill=False, rounding="largest") == [4, 1, 1]
    assert apportioned([1, 0, 0], 9, [3, 9, 2], spill=True, rounding="largest") == [3, 4, 2]
    assert apportioned([0, 0], 5, [9, 9], spill=False, rounding="largest") == [3, 2]
    assert apportioned([1, 1], 50, [4, 6], spill=True, rounding="largest") == [4, 6]


@pytest.mark.parametrize(
    ("budget", "sizes", "expected"),
    [
        (Keep(0.5), [575], [575 - round(575 * 0.5)]),  # FastV N - round(N R)
        (Keep(0.5, "round"), [575], [288]),  # round(N (1 - R)), as others write it
        (Equal(0.1), [196] * 3, [19] * 3),  # FastVID int(n keep)
        (Equal(0.1, share=0.4), [196], [7]),
        (Equal(0.1, share=0.4, other=True), [196], [12]),
        (Equal(1 - 0.7), [196], [58]),  # DyCoke int((1 - K) n)
        (Equal(0.098, rounding="round"), [576], [56]),  # DivPrune
        (Equal(0.2222, block=8, extra=4), [576], [124]),  # DART
        (Correct(0.15), [196, 31, 1], [30, 5, 1]),  # HoliTom, nothing collapsed
        (Equal(0.25, rounding="round", least=1), [1, 2, 196], [1, 1, 49]),
        (OfOriginal(0.125), [575], [71]),  # PyramidDrop int(N rate)
        (Equal(0.5, share=0.5), [578], [144]),  # VisPruner int(T / 2)
    ],
    ids=str,
)
def test_published(budget: Budget, sizes: list[int], expected: list[int]):
    assert counts(budget, sizes) == expected


def test_per_frame_rounds_in_each_frame():
    c = clip(4, 14, 14)
    pair = [np.arange(2 * 196), np.arange(2 * 196, 4 * 196)]
    none = np.zeros(len(c))
    assert Equal(0.1, per="frame").counts(c, pair, none) == [38, 38]
    assert Equal(0.1).counts(c, pair, none) == [39, 39]
    assert Equal(0.1, per="frame", rounding="ceil").counts(c, pair, none) == [40, 40]


def test_correct_raises_the_rate_by_what_was_removed():
    """HoliTom: ceil(n' keep total / left), of the whole step though the budget is in a piece."""
    c = clip(4, 14, 14)
    mass = np.ones(len(c))
    left = np.flatnonzero((c.frame == 0) | (c.row >= 7))  # the upper half is collapsed into frame 0
    mass[(c.frame == 0) & (c.row < 7)] = 4
    c = replace(c, mass=mass).take(left)
    rate = 0.1 * 784 / (784 - 3 * 98)
    found = Correct(0.1).counts(c, PerFrame().groups(c), np.zeros(len(c)))
    assert found == [int(np.ceil(196 * rate)), *[int(np.ceil(98 * rate))] * 3]
    pieces = (Step(budget=Correct(0.1)), Step(segment=PerFrame(), budget=Correct(0.1)))
    made = weights([Step(split=First(), pieces=pieces)], c)
    assert np.bincount(c.frame[made.anchor]).tolist() == found
    assert Correct(0.9).counts(c, [np.arange(len(c))], np.zeros(len(c))) == [len(c)]


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (Keep(1.2), "keep=1.2"),
        (Keep(0.5, "up"), 'rounding="up"'),
        (Equal(-0.1), "keep=-0.1"),
        (Equal(0.5, per="token"), 'per="token"'),
        (Equal(0.5, per="frame", sizes="video"), 'sizes="video"'),
        (OfOriginal(2), "keep=2"),
    ],
    ids=str,
)
def test_refused(budget: Budget, says: str):
    with pytest.raises(ProbeError, match=says):
        counts(budget, [5, 6])
