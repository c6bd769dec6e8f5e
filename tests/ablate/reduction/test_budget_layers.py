"""Budgets over layers: rates of the original count, and the sum over layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate.reduction.budget_layers import (
    CostTarget,
    OfOriginal,
    affordable,
    schedule,
    scheduled,
    settled,
    sigmoid,
)
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.segment import Whole
from probe.ablate.reduction.segment_static import PlaceRuns


def clip(time: int, rows: int, cols: int) -> Candidates:
    return Candidates.grid(
        torch.randn(time, rows, cols, 2, generator=torch.Generator().manual_seed(0))
    )


def test_schedule_of_the_original_count():
    """PyramidDrop at {8, 16, 24} of 32 layers: rates 1, .5, .25, .125 of the original count."""
    rates = [1.0] * 8 + [0.5] * 8 + [0.25] * 8 + [0.125] * 8
    assert schedule(rates) == [
        (8, OfOriginal(0.5)),
        (16, OfOriginal(0.25)),
        (24, OfOriginal(0.125)),
    ]
    tokens = scheduled(rates, 575)
    assert tokens[7:9] == [575, 287] and tokens[15:17] == [287, 143] and tokens[31] == 71
    assert sum(rates) / 32 == pytest.approx(0.469, abs=5e-4)
    c = replace(clip(5, 5, 23), total=575)
    for _, budget in schedule(rates):
        kept = budget.counts(c, [np.arange(len(c))], np.zeros(len(c)))[0]
        c = c.take(np.arange(kept))
    assert len(c) == 71
    assert schedule([1.0] * 4) == []


def test_schedule_refuses_what_rises():
    with pytest.raises(ProbeError, match="never rise"):
        schedule([1.0, 0.5, 0.6])


def test_sigmoid_falls_from_one_to_the_least():
    rates = sigmoid(28, middle=0.5, steepness=30, least=0.1)
    assert rates[0] > 0.99 and rates[-1] < 0.11 and rates[14] == pytest.approx(0.55)
    assert list(rates) == sorted(rates, reverse=True)
    assert len(schedule(rates)) == 28


def test_cost_target_is_fastv_where_nothing_was_spent_on_merging():
    """FrameFusion's own count: after one full layer of 28, the others may have (28 c - 1) / 27."""
    c = replace(clip(10, 10, 10), total=1000, spent=(1000,))
    whole = Whole().groups(c)
    found = CostTarget(0.3).counts(c, whole, np.zeros(1000))
    assert found == [round(1000 * (28 * 0.3 - 1) / 27)]
    assert 1000 + 27 * found[0] == pytest.approx(0.3 * 28 * 1000, abs=14)


@pytest.mark.parametrize("spent", [(), (1000,), (1000, 700), (1000, 700, 650)])
@pytest.mark.parametrize("cost", [0.2, 0.3, 0.5])
def test_cost_target_meets_its_sum(cost: float, spent: tuple[int, ...]):
    now = spent[-1] if spent else 1000
    c = replace(clip(10, 10, 10).take(np.arange(now)), total=1000, spent=spent)
    kept = CostTarget(cost).counts(c, Whole().groups(c), np.zeros(now))[0]
    total = sum(spent) + kept * (28 - len(spent))
    assert total == pytest.approx(cost * 28 * 1000, abs=15)


def test_cost_target_neutral_and_spent():
    c = replace(clip(1, 2, 5), total=10, spent=(10, 10))
    assert CostTarget(1.0).counts(c, [np.arange(10)], np.zeros(10)) == [10]
    with pytest.raises(ProbeError, match="already spent after 2 layers"):
        CostTarget(0.05).counts(c, [np.arange(10)], np.zeros(10))
    with pytest.raises(ProbeError, match="above 0"):
        affordable(c, 0, 28)


def test_merging_ends_once_little_merges_and_pruning_comes_right_after():
    c = replace(clip(10, 2, 5), total=100)
    history = [(), (80,), (80, 76), (80, 76, 40), (80, 76, 40, 20)]
    sites = [replace(c, spent=spent) for spent in history]
    assert [settled(site, 0.1) for site in sites] == [0, 0, 1, 2, 3]
    budget = CostTarget(0.3, after=0.1)
    kept = [budget.counts(site, [np.arange(100)], np.zeros(100))[0] for site in sites]
    assert [k < 100 for k in kept] == [False, False, True, False, False]
    merged = [len(PlaceRuns(-1.0, until=0.1).groups(site)) for site in sites]
    assert merged == [10, 10, 100, 100, 100]


def test_place_runs_stop_at_the_cost():
    """With nothing spent, at most 1 - cost of the tokens joins."""
    c = replace(clip(10, 2, 5), total=100)
    assert len(PlaceRuns(-1.0, cost=0.3).groups(c)) == 30
    assert len(PlaceRuns(-1.0, cost=0.05).groups(c)) == 10
