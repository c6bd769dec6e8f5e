"""Budgets whose total depends on the data."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate.reduction.budget_data import Adaptive, Unique, shared
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Budget, Chosen, Score, Select
from probe.ablate.reduction.segment import PerFrame, Whole


@dataclass(frozen=True)
class Channel(Score):
    """One channel of the features."""

    number: int = 0

    def score(self, c: Candidates) -> torch.Tensor:
        return c.x[:, self.number]


@dataclass(frozen=True)
class Odd(Select):
    """Every odd token of frames with an odd number, every token of the others."""

    def choose(self, c: Candidates, group: np.ndarray, score: np.ndarray, count: int) -> Chosen:
        step = 1 + int(c.frame[group[0]] % 2)
        return Chosen(group[::step][:count], group[::step][:count])


def clip(seed: int, time: int = 6, side: int = 5) -> Candidates:
    x = torch.rand(time, side, side, 4, generator=torch.Generator().manual_seed(seed))
    return Candidates.grid(x + torch.rand(time, 1, 1, 4))


def counts(budget: Budget, c: Candidates) -> list[int]:
    return budget.counts(c, PerFrame().groups(c), np.zeros(len(c)))


def test_adaptive_against_torch():
    """As many as lie above Q3 + 1.5 IQR, as torch's quantiles say."""
    x = torch.randn(3, 8, 8, 1, generator=torch.Generator().manual_seed(1)) ** 3
    c = Candidates.grid(x)
    expected = []
    for frame in x.flatten(1):
        low, high = torch.quantile(frame.double(), torch.tensor([0.25, 0.75]).double())
        expected.append(int((frame.double() > high + 1.5 * (high - low)).sum()))
    assert min(expected) > 1
    assert counts(Adaptive(score=Channel()), c) == expected
    assert counts(Adaptive(score=Channel(), most=2), c) == [2, 2, 2]
    flat = Candidates.grid(torch.ones(2, 4, 4, 1))
    assert counts(Adaptive(score=Channel()), flat) == [1, 1]
    assert counts(Adaptive(score=Channel(), least=0), flat) == [0, 0]


def test_rank_against_numpy():
    c = clip(0)
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(150, 4, generator=generator) @ torch.rand(4, 9, generator=generator)
    c = replace(c, readings={Channel(): rows})
    budget = Adaptive("rank", Channel())
    assert budget.counts(c, Whole().groups(c), np.zeros(150)) == [4]
    assert np.linalg.matrix_rank(rows.numpy()) == 4
    assert counts(budget, c) == [4] * 6
    assert counts(replace(budget, tolerance=2.0), c) == [1] * 6
    with pytest.raises(ProbeError, match="a row of values a token"):
        counts(budget, clip(0))


def frame_directions(angles: list[float], side: int) -> Candidates:
    x = torch.tensor([[np.cos(a), np.sin(a)] for a in angles])
    return Candidates.grid(x.reshape(-1, 1, 1, 2).expand(-1, side, side, 2).contiguous())


def test_unique_frames_get_more():
    c = frame_directions([0, 0, 0, 0, 1.2], 10)
    found = counts(Unique(0.3), c)
    assert len(set(found[:4])) == 1 and found[4] > found[0] and sum(found) <= 150
    assert found[4] <= 2 * (150 // 5)


def test_unique_against_the_definition():
    c = clip(3, time=8, side=6)
    means = c.frame_means().double()
    alike = torch.nn.functional.cosine_similarity(means[:, None], means[None], dim=-1).mean(1)
    share = torch.softmax((alike.mean() - alike) * 8**0.5, 0)
    total = int(0.25 * len(c))
    expected = [int(float(s) * total) for s in share]
    assert max(expected) <= 2 * (total // 8)
    assert counts(Unique(0.25), c) == expected


def test_what_a_cap_cuts_off_goes_to_the_others():
    share = np.array([0.7, 0.1, 0.1, 0.1])
    assert shared(share, 40, np.full(4, 20)).tolist() == [20, 6, 6, 6]
    # 28 11 0 0 -> 12 11 0 0, 17 left: 5 each; 12 12 5 5, 6 left: 2 each, the full first one too.
    assert shared(np.array([0.7, 0.28, 0.01, 0.01]), 40, np.full(4, 12)).tolist() == [12, 12, 7, 7]
    assert shared(share, 40, np.full(4, 40)).tolist() == [28, 4, 4, 4]


def test_unique_does_nothing_where_all_fit():
    c = replace(clip(0), mass=np.full(150, 4.0))
    assert counts(Unique(0.25), c) == [25] * 6
    c = replace(clip(0), total=300)
    assert counts(Unique(0.5), c) == [25] * 6
    assert sum(counts(Unique(0.25), c)) <= 75


def test_unused_centres_go_to_the_other_frames():
    """Odd frames offer 13 of 25 tokens; what they leave goes to the even ones."""
    c = Candidates.grid(torch.ones(4, 5, 5, 2))
    assert counts(Unique(0.6), c) == [15, 15, 15, 15]
    assert counts(Unique(0.6, select=Odd()), c) == [17, 13, 17, 13]
