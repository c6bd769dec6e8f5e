"""Selections by score, order and place, and their combinations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from probe.ablate.reduction.build import Step, weights
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Score, Select
from probe.ablate.reduction.segment import PerFrame, Whole
from probe.ablate.reduction.select import Prefix, Protect, Threshold, TopK
from probe.ablate.reduction.select_diverse import MaxMin
from probe.ablate.reduction.select_frames import Anchors, EachFrame, shares
from probe.ablate.reduction.select_grid import FinerGrid, Grid, Lattice, LocalTop
from probe.errors import ProbeError


@dataclass(frozen=True)
class Channel(Score):
    """One channel of the features as score."""

    number: int = 0

    def score(self, c: Candidates) -> Tensor:
        return c.x[:, self.number]


def clip(time: int = 3, rows: int = 4, cols: int = 5, seed: int = 0) -> Candidates:
    x = torch.randn(time, rows, cols, 8, generator=torch.Generator().manual_seed(seed))
    return Candidates.grid(x)


def chosen(select: Select, c: Candidates, count: int) -> list[int]:
    score = c.x[:, 0].double().numpy()
    return select.choose(c, np.arange(len(c)), score, count).centres.tolist()


def top(score: np.ndarray, count: int) -> list[int]:
    return sorted(sorted(range(len(score)), key=lambda i: (-score[i], i))[:count])


def test_top_k_is_the_sorted_list_and_ties_go_to_the_earlier() -> None:
    c = clip()
    c.x[:, 0] = (c.x[:, 0] * 2).round()

    for count in (0, 1, 17, 60):
        assert chosen(TopK(), c, count) == top(c.x[:, 0].numpy(), count)


def test_threshold_keeps_what_reaches_it_up_to_the_budget() -> None:
    c = clip()
    score = c.x[:, 0].numpy()
    reached = np.flatnonzero(score >= 0.5).tolist()

    assert chosen(Threshold(0.5), c, 60) == reached
    assert chosen(Threshold(0.5), c, 3) == top(score, 3)
    assert chosen(Threshold(9.0), c, 60) == []
    assert chosen(Threshold(9.0, least=2), c, 60) == top(score, 2)
    assert weights([Step(score=Channel(), select=Threshold(-9.0))], c).is_identity
    assert Threshold(-float("inf")).inert


def test_prefix_is_the_first_tokens() -> None:
    c = clip()

    w = weights([Step(segment=PerFrame(), keep_tokens=7, select=Prefix())], c)

    assert w.anchor.tolist() == [f * 20 + i for f in range(3) for i in range(7)]


@pytest.mark.parametrize("count", [1, 2, 7, 59, 60])
def test_grid_has_both_ends_and_equal_distances(count: int) -> None:
    kept = chosen(Grid(), clip(), count)

    assert len(set(kept)) == count
    assert kept[0] == 0
    if count > 1:
        assert kept[-1] == 59
        assert np.abs(np.array(kept) - np.arange(count) * 59 / (count - 1)).max() <= 0.5
    assert chosen(Grid(count=count), clip(), 60) == kept


def test_grid_by_stride() -> None:
    c = clip()

    assert chosen(Grid(stride=7), c, 60) == list(range(0, 60, 7))
    # 60 // 9 = 6: 0, 6, .. 48, the first nine of ten.
    assert chosen(Grid(spacing="stride"), c, 9) == list(range(0, 54, 6))
    assert len(chosen(Grid(spacing="stride"), c, 59)) == 59
    assert weights([Step(select=Grid(stride=1))], c).is_identity
    assert Grid(stride=1).inert and not Grid(stride=2).inert


def test_finer_grid_of_prumerge_plus() -> None:
    # 576 tokens, 40 kept: every 14th, three times finer every 4th, and the last never.
    c = clip(1, 24, 24)

    assert chosen(FinerGrid(), c, 40) == list(range(0, 575, 4))


def test_lattice_in_time_and_space() -> None:
    c = clip(5, 4, 6)

    w = weights([Step(select=Lattice(time=2, row=2, col=3))], c)

    expected = [t * 24 + r * 6 + k for t in (0, 2, 4) for r in (0, 2) for k in (0, 3)]
    assert w.anchor.tolist() == expected
    assert weights([Step(select=Lattice())], c).is_identity


def test_a_newline_is_on_the_lattice_of_frames_only() -> None:
    c = clip(2, 2, 2).take(np.array([0, 1, 2, 3, 3, 4, 5, 6, 7, 7]))
    c.row[[4, 9]], c.col[[4, 9]] = -1, -1

    assert chosen(Lattice(time=2), c, 10) == [0, 1, 2, 3, 4]
    assert chosen(Lattice(row=2), c, 10) == [0, 1, 5, 6]


@pytest.mark.parametrize("count", [1, 7, 13, 60])
def test_local_top_has_the_best_of_each_of_as_many_runs(count: int) -> None:
    c = clip()
    score = c.x[:, 0].numpy()

    runs = np.array_split(np.arange(60), count)
    assert chosen(LocalTop(), c, count) == [int(run[score[run].argmax()]) for run in runs]


def test_local_top_of_windows() -> None:
    c = clip()
    score = c.x[:, 0].numpy()

    expected = [i for s in range(0, 60, 9) for i in (s + np.array(top(score[s : s + 9], 2)))]
    assert chosen(LocalTop(each=2, window=9), c, 60) == expected
    assert weights([Step(select=LocalTop(window=1))], c).is_identity
    assert len(chosen(LocalTop(each=2), c, 7)) == 7


def test_then_gives_the_second_what_the_first_left() -> None:
    c = clip()
    score = c.x[:, 0].double().numpy()
    both = TopK().then(Grid(), 0.5).choose(c, np.arange(60), score, 9)

    first = top(score, 4)
    left = np.setdiff1d(np.arange(60), first)
    second = left[np.round(np.linspace(0, 55, 5)).astype(int)]
    assert both.centres.tolist() == [*first, *second]
    assert both.targets.tolist() == second.tolist()
    assert len(TopK().then(Grid(), 3).choose(c, np.arange(60), score, 9).targets) == 6


def test_a_share_of_all_is_the_first_alone_and_of_nothing_the_second() -> None:
    c = clip()

    assert chosen(TopK().then(MaxMin(), 1.0), c, 9) == chosen(TopK(), c, 9)
    assert chosen(TopK().then(MaxMin(), 0.0), c, 9) == chosen(MaxMin(), c, 9)


def test_union_is_what_either_takes() -> None:
    c = clip()

    kept = chosen(TopK() | Lattice(time=3, row=2), c, 10)

    assert kept == sorted({*chosen(TopK(), c, 10), *chosen(Lattice(time=3, row=2), c, 10)})
    # No lattice beyond one token that is in anyway: the other alone.
    best = top(c.x[:, 0].numpy(), 10)
    assert best == chosen(TopK() | TopK(), c, 10)


def test_a_key_set_survives_every_step() -> None:
    c = clip()
    key = Channel(1)
    step = Step(score=Channel(), keep=0.5, select=Protect(TopK(), key, count=2))

    w = weights([step, step, step, step], c)

    keys = {f * 20 + i for f in range(3) for i in top(c.x[20 * f : 20 * f + 20, 1].numpy(), 2)}
    assert keys <= set(w.anchor.tolist())
    plain = weights([Step(score=Channel(), keep=0.5)] * 4, c)
    assert not keys <= set(plain.anchor.tolist())
    assert step.select.leaves() == (key,)


def test_a_key_set_may_count_towards_the_budget() -> None:
    c = clip()
    score = c.x[:, 0].numpy()
    keys = top(c.x[:, 1].numpy(), 4)
    others = np.setdiff1d(np.arange(60), keys)

    kept = chosen(Protect(TopK(), Channel(1), 4, per="group", counted=True), c, 10)

    assert kept == sorted([*keys, *others[top(score[others], 6)]])
    assert chosen(Protect(TopK(), Channel(1), 0), c, 10) == chosen(TopK(), c, 10)


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, [3]), (7, [3, 3, 3]), (9, [1, 9, 2]), (50, [4, 4]), (5, [0, 5, 5])]
)
def test_shares_are_as_equal_as_the_sizes_allow(count: int, sizes: list[int]) -> None:
    given = shares(count, sizes)

    assert sum(given) == min(count, sum(sizes))
    assert all(0 <= g <= s for g, s in zip(given, sizes, strict=True))
    open_ = [g for g, s in zip(given, sizes, strict=True) if g < s]
    assert all(g >= max(given) - 1 for g in open_)


def test_each_frame_in_a_segment_is_per_frame() -> None:
    c = clip()

    inside = Step(segment=Whole(), score=Channel(), keep_tokens=21, select=EachFrame(TopK()))
    frames = Step(segment=PerFrame(), score=Channel(), keep_tokens=7)

    np.testing.assert_array_equal(weights([inside], c).anchor, weights([frames], c).anchor)


def test_anchor_frames_are_counted_from_the_end() -> None:
    c = clip(7)

    kept = np.array(chosen(Anchors(Prefix(), every=4), c, 9))

    # Frames 2 and 6, half of 9 rounded down each.
    assert kept.tolist() == [40, 41, 42, 43, 120, 121, 122, 123]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Grid(stride=0),
        lambda: Grid(stride=2, count=3),
        lambda: Grid(spacing="log"),
        lambda: Lattice(row=0),
        lambda: LocalTop(each=0),
        lambda: LocalTop(window=0),
        lambda: Anchors(TopK(), every=0),
        lambda: Protect(TopK(), Channel(), 3, per="video"),
    ],
)
def test_bad_parameters_are_refused_in_one_line(make) -> None:
    with pytest.raises(ProbeError) as error:
        make()
    assert "\n" not in str(error.value)
