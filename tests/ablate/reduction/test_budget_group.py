"""Budgets by the scores of groups."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate.reduction.budget import Equal
from probe.ablate.reduction.budget_data import Adaptive, Unique
from probe.ablate.reduction.budget_group import Proportional, Regions, Softmax
from probe.ablate.reduction.build import Step, weights
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Budget, Score
from probe.ablate.reduction.segment import PerFrame
from probe.ablate.reduction.select import TopK


@dataclass(frozen=True)
class Channel(Score):
    """One channel of the features."""

    number: int = 0

    def score(self, c: Candidates) -> torch.Tensor:
        return c.x[:, self.number]


def clip(seed: int, time: int = 6, side: int = 5) -> Candidates:
    x = torch.rand(time, side, side, 4, generator=torch.Generator().manual_seed(seed))
    return Candidates.grid(x + torch.rand(time, 1, 1, 4))


def counts(budget: Budget, c: Candidates) -> list[int]:
    return budget.counts(c, PerFrame().groups(c), np.zeros(len(c)))


BUDGETS = [
    Softmax(0.3, Channel()),
    Proportional(keep=0.3, score=Channel()),
    Proportional(keep=0.3, score=Channel(), power=4, rounding="largest", spill=True),
    Proportional(tokens=40, score=Channel(), cap=9),
    Regions(0.3, score=Channel()),
    Adaptive(score=Channel()),
    Adaptive("threshold", Channel(), tau=0.8),
    Unique(0.3),
    Unique(0.3, select=TopK()),
]


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_bounds(budget: Budget, seed: int):
    c = clip(seed)
    found = counts(budget, c)
    assert len(found) == 6 and all(type(k) is int and 0 <= k <= 25 for k in found)
    if isinstance(budget, Proportional):
        assert sum(found) <= 45
    if isinstance(budget, Regions | Unique):
        assert sum(found) <= int(0.3 * 150)
    assert set(budget.leaves()) <= {Channel()}


@pytest.mark.parametrize("seed", range(5))
def test_softmax_against_torch(seed: int):
    means = torch.rand(7, generator=torch.Generator().manual_seed(seed)).double()
    p = torch.softmax(means / 0.05, 0)
    rates = Softmax(0.25, temperature=0.05).rates(means.numpy())
    assert np.allclose(rates, 0.25 * (1 + p - p.mean()))
    assert rates.sum() == pytest.approx(7 * 0.25)
    assert (rates <= 0.5).all()


def test_softmax_counts_as_published():
    """VidCom2 at 0.25 of 196: one frame far above the others has nearly twice the mean rate."""
    x = torch.zeros(4, 14, 14, 1)
    x[2] = 1
    found = counts(Softmax(0.25, Channel()), Candidates.grid(x))
    low, high = 0.25 * (1 + 0 - 0.25), 0.25 * (1 + 1 - 0.25)
    assert found == [round(196 * low)] * 2 + [round(196 * high), round(196 * low)]
    assert counts(Softmax(0.002, Channel()), Candidates.grid(x)) == [1] * 4
    assert counts(Softmax(0.9, Channel()), Candidates.grid(x))[2] == 196


def test_softmax_is_equal_where_frames_are_or_the_temperature_is_high():
    same = Candidates.grid(torch.ones(5, 6, 6, 1))
    equal = counts(Equal(0.25, rounding="round"), same)
    assert counts(Softmax(0.25, Channel()), same) == equal
    assert counts(Softmax(0.25, Channel(), temperature=1e9), clip(0, 5, 6)) == equal


def test_the_score_of_the_step_is_the_default():
    c = clip(0)
    own = Step(segment=PerFrame(), score=Channel(), budget=Softmax(0.3, temperature=0.1))
    given = Step(
        segment=PerFrame(), score=Channel(), budget=Softmax(0.3, Channel(), temperature=0.1)
    )
    assert np.array_equal(weights([own], c).anchor, weights([given], c).anchor)
    assert len(set(np.bincount(c.frame[weights([own], c).anchor]))) > 1


def test_proportional_to_the_square():
    """QuoTA: int(tokens w), w the square of the score divided by its sum."""
    score = torch.tensor([0.1, 0.9, 0.5, 0.0])
    c = Candidates.grid(score.reshape(4, 1, 1, 1).expand(4, 27, 27, 1).contiguous())
    w = (score.double() ** 2) / (score.double() ** 2).sum()
    budget = Proportional(tokens=1000, score=Channel(), power=2, room=True)
    assert counts(budget, c) == [int(1000 * float(v)) for v in w]
    scaled = Candidates.grid((score * 3).reshape(4, 1, 1, 1).expand(4, 27, 27, 1).contiguous())
    assert counts(budget, scaled) == counts(budget, c)
    hot = Candidates.grid(torch.eye(4)[1].reshape(4, 1, 1, 1).expand(4, 5, 5, 1).contiguous())
    assert counts(replace(budget, tokens=20), hot) == [0, 20, 0, 0]


def test_proportional_spends_everything_with_the_largest_remainders():
    for seed in range(4):
        budget = Proportional(keep=0.37, score=Channel(), rounding="largest", spill=True)
        found = counts(budget, clip(seed))
        assert sum(found) == int(0.37 * 150) == budget.expected([25] * 6)
    assert counts(replace(budget, power=0), clip(0)) == [10, 9, 9, 9, 9, 9]


def test_regions_of_frames():
    """The best half of all tokens lies in frames 1 and 3 only, twice as much in 3."""
    x = torch.zeros(4, 6, 6, 1)
    x[1].view(-1)[:24] = 1
    x[3].view(-1)[:12] = 2
    x[3].view(-1)[12:36] = 2
    x[1].view(-1)[24:] = 1
    found = counts(Regions(0.2, 0.5, Channel()), Candidates.grid(x))
    assert found == [0, 14, 0, 14] and sum(found) <= int(0.2 * 144)


@pytest.mark.parametrize("corner", range(4))
def test_the_crop_of_the_brightest_quadrant_gets_everything(corner: int):
    """HiRED with an overview and 2 x 2 crops; the released strips miss the quadrant."""
    x = torch.zeros(5, 8, 8, 1)
    down, right = divmod(corner, 2)
    x[0, 4 * down : 4 * down + 4, 4 * right : 4 * right + 4] = 1
    c = Candidates.grid(x)
    budget = Regions(keep=0.2, alpha=0.75, score=Channel(), grid=(2, 2))
    total = int(5 * 64 * 0.2)
    expected = [int(total * 0.75), 0, 0, 0, 0]
    expected[1 + corner] = total - expected[0]
    assert counts(budget, c) == expected
    strips = counts(replace(budget, strips=True), c)
    assert strips[1:] == ([8, 8, 0, 0] if down == 0 else [0, 0, 8, 8])


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (Softmax(0.3, temperature=0), "temperature=0"),
        (Proportional(score=Channel()), "either keep= or tokens="),
        (Proportional(keep=0.5, tokens=3), "either keep= or tokens="),
        (Regions(grid=(2, 2)), "6 groups are no overview and 2 x 2 crops"),
        (Adaptive("mad"), '"iqr", "rank" or "threshold"'),
        (Adaptive("threshold"), "tau="),
        (Adaptive("iqr", tau=0.5), "tau="),
        (Unique(1.5), "keep=1.5"),
    ],
    ids=str,
)
def test_refused(budget: Budget, says: str):
    with pytest.raises(ProbeError, match=says) as error:
        counts(budget, clip(0))
    assert "\n" not in str(error.value)


def test_negative_scores_cannot_be_shares():
    c = clip(0)
    c = replace(c, x=c.x - 5)
    with pytest.raises(ProbeError, match="not negative"):
        counts(Proportional(keep=0.3, score=Channel()), c)
