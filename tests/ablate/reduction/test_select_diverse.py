"""Selections by comparison of features, against brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from probe.ablate.reduction import compare
from probe.ablate.reduction.build import Step, weights
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.parts import Select
from probe.ablate.reduction.select import TopK
from probe.ablate.reduction.select_cluster import DPCKNN, density_peaks
from probe.ablate.reduction.select_diverse import Cover, MaxMin
from probe.ablate.reduction.select_match import Alike, EvenOdd, Pivots
from probe.errors import ProbeError

SELECTIONS = [MaxMin(), Cover(0.7), DPCKNN(4), DPCKNN(4, metric="cos"), Pivots(visual=2, text=0)]


def tokens(x: Tensor, **more: object) -> Candidates:
    return replace(Candidates.grid(x.reshape(1, 1, *x.shape)), **more)


def noise(count: int, channels: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))


def scores(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count)


def pick(select: Select, c: Candidates, count: int, score: np.ndarray | None = None) -> list[int]:
    score = scores(len(c)) if score is None else score
    return select.choose(c, np.arange(len(c)), score, count).centres.tolist()


def distances(x: Tensor) -> np.ndarray:
    unit = x.double() / x.double().norm(dim=1, keepdim=True)
    return 1 - (unit @ unit.T).numpy()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [2, 3, 5])
def test_farthest_points_are_at_least_half_as_far_as_the_best_set(seed: int, count: int) -> None:
    x = noise(10, 3, seed)
    # The root of 1 - cosine is a distance (of unit vectors, up to a factor): the bound is for it.
    far = np.sqrt(np.maximum(distances(x), 0))

    kept = pick(MaxMin(), tokens(x), count)

    def spread(some: tuple[int, ...] | list[int]) -> float:
        return min(far[i, j] for i, j in combinations(some, 2))

    best = max(spread(some) for some in combinations(range(10), count))
    assert spread(kept) >= best / 2 - 1e-12


def test_farthest_points_are_those_of_a_loop() -> None:
    x = noise(40)
    far = distances(x)
    others = far + np.diag(np.full(40, np.inf))
    expected = [int(others.min(1).argmax())]
    while len(expected) < 40:
        gap = [-1 if i in expected else min(far[i, j] for j in expected) for i in range(40)]
        expected.append(int(np.argmax(gap)))

    assert pick(MaxMin(), tokens(x), 40) == expected
    # Fewer are the first of more, so the smallest distance never grows with the count.
    assert pick(MaxMin(), tokens(x), 7) == expected[:7]


def test_duplicates_are_picked_last_and_the_earlier_one_first() -> None:
    x = noise(12)
    x[[3, 7, 11]] = x[0] * torch.tensor([[1.0], [2.0], [0.5]])

    kept = pick(MaxMin(), tokens(x), 12)

    assert kept[-3:] == [3, 7, 11]
    assert pick(MaxMin(), tokens(torch.ones(5, 4)), 3) == [0, 1, 2]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    c = tokens(noise(50))
    some = (MaxMin(), DPCKNN(), Cover(0.5), EvenOdd(5))
    whole = [pick(select, c, 20) for select in some]

    # Too few pairs for a table, blocks of three rows, and the first pick in two stages.
    monkeypatch.setattr(compare, "PAIRS", 160)

    assert [len(block) for block in compare.blocks(np.arange(50), 50)] == [3] * 16 + [2]
    assert [pick(select, c, 20) for select in some] == whole
    assert pick(MaxMin(), tokens(torch.ones(20, 4)), 3) == [0, 1, 2]
    assert pick(MaxMin(), tokens(noise(1)), 1) == [0]


@pytest.mark.parametrize("u", [0.1, 0.4, 0.9])
def test_a_cover_is_independent_and_dominating(u: float) -> None:
    x, score = noise(60, 4), scores(60)
    far = distances(x)

    kept = pick(Cover(u), tokens(x), 60, score)

    expected: list[int] = []
    for i in sorted(range(60), key=lambda i: (-score[i], i)):
        if all(far[i, j] >= u for j in expected):
            expected.append(i)
    assert kept == expected
    assert 1 < len(kept) < 60
    assert pick(Cover(u), tokens(x), 3, score) == expected[:3]
    inside = far[np.ix_(kept, kept)] + np.eye(len(kept))
    assert inside.min() >= u
    assert (far[:, kept].min(1) < u)[np.setdiff1d(np.arange(60), kept)].all()


def test_a_cover_at_distance_zero_keeps_all() -> None:
    x = torch.cat([noise(8), noise(8)])

    for u in (0.0, -1.0):
        assert weights([Step(select=Cover(u))], tokens(x)).raster().is_identity
        assert Cover(u).inert
    assert sorted(pick(Cover(1e-6), tokens(x), 16, -np.arange(16.0))) == list(range(8))


def even_odd(x: Tensor, r: int, count: int, order: list[int], resort: bool) -> list[int]:
    near = 1 - distances(x)
    while len(order) > count:
        even, odd = order[::2], order[1::2]
        best = [max(near[i, j] for j in odd) for i in even]
        ranked = sorted(range(len(even)), key=lambda i: (-round(best[i], 9), i))
        gone = min(r, len(order) - count, len(order) // 2)
        order = [even[i] for i in ranked[gone:]] + odd
        order = sorted(order) if resort else order
    return order


@pytest.mark.parametrize("r", [1, 3, 8, 100])
def test_even_odd_matching_is_that_of_a_loop(r: int) -> None:
    x, score = noise(41), scores(41)
    falling = np.argsort(-score).tolist()

    for count in (1, 12, 40, 41):
        expected = even_odd(x, r, count, list(range(41)), True)
        assert pick(EvenOdd(r), tokens(x), count, score) == expected
        if count < 41:
            expected = even_odd(x, r, count, falling, False)
            assert pick(EvenOdd(r, order="published"), tokens(x), count, score) == expected
    assert pick(EvenOdd(r), tokens(x), 0) == []


def test_duplicates_leave_first() -> None:
    x = noise(10)
    x[4] = x[7] * 3

    assert 4 not in pick(EvenOdd(1), tokens(x), 9)


def dart(near: np.ndarray, score: np.ndarray, text: np.ndarray, count: int) -> list[int]:
    pivots = sorted(range(len(score)), key=lambda i: (-score[i], i))[:4]
    left = [i for i in range(len(score)) if i not in pivots]
    kept = list(pivots)
    for similar in [near[p] for p in pivots] + list(text.T):
        some = sorted(left, key=lambda i: (round(similar[i], 9), i))[: count // 8]
        kept += some
        left = [i for i in left if i not in some]
    return kept


def test_pivots_take_the_least_similar_in_turn() -> None:
    x, score = noise(70, 5), scores(70)
    text = np.random.default_rng(1).uniform(-1, 1, (70, 6))
    c = tokens(x, readings={"text_pivots": torch.as_tensor(text)})

    kept = pick(Pivots(), c, 30, score)

    assert kept == dart(1 - distances(x), score, text[:, :4], 30)
    assert len(kept) == 4 + 8 * 3
    assert pick(Pivots(), c, 70, score) == list(range(70))


def test_published_count_of_dart() -> None:
    c = tokens(noise(576, 4), readings={"text_pivots": torch.rand(576, 4)})

    assert len(pick(Pivots(), c, int(576 * 0.2222))) == 124


def test_pivots_refuse_text_that_was_not_read() -> None:
    with pytest.raises(ProbeError, match=r"pivots: text=4 .* use text=0$"):
        pick(Pivots(), tokens(noise(20)), 10)


def test_a_uniform_group_becomes_its_last_token() -> None:
    x = noise(1) + 0.1 * noise(9, seed=1)
    far = distances(x)
    mean = 1 - far[np.triu_indices(9, 1)].mean()

    assert pick(Alike(mean - 1e-6), tokens(x), 9) == [8]
    assert pick(Alike(mean - 1e-6, keep="first"), tokens(x), 9) == [0]
    assert pick(Alike(mean + 1e-6), tokens(x), 9) == list(range(9))
    assert pick(Alike(1.0), tokens(torch.ones(4, 3)), 4) == [3]
    assert pick(Alike(-1.0), tokens(noise(1)), 1) == [0]
    assert Alike(1.01).inert and not Alike(1.0).inert


def peaks(x: Tensor, k: int, cosine: bool) -> tuple[np.ndarray, np.ndarray]:
    n = len(x)
    far = distances(x)
    if not cosine:
        far = np.array([[float((a - b).norm()) for b in x.double()] for a in x.double()])
        far = far / x.shape[1] ** 0.5
    density = np.array(
        [np.exp(-np.mean(sorted(row)[:k] @ np.diag(sorted(row)[:k]))) for row in far]
    )
    gap = np.zeros(n)
    for i in range(n):
        denser = [
            far[i, j]
            for j in range(n)
            if density[j] > density[i] + 1e-11 or (abs(density[j] - density[i]) <= 1e-11 and j < i)
        ]
        gap[i] = min(denser) if denser else far.max()
    return density, gap


@pytest.mark.parametrize("metric", ["distance", "cos"])
@pytest.mark.parametrize("k", [1, 4, 99])
def test_density_peaks_are_those_of_loops(metric: str, k: int) -> None:
    x = noise(30)
    x[20] = x[3]  # a tie
    density, gap = peaks(x, k, metric == "cos")

    found = density_peaks(x, k, metric)

    np.testing.assert_allclose(found[0], density, atol=1e-8)
    np.testing.assert_allclose(found[1], gap, atol=1e-4)
    order = sorted(range(30), key=lambda i: (-round(density[i] * gap[i], 6), i))
    assert pick(DPCKNN(k, metric=metric), tokens(x), 9) == order[:9]
    assert sorted(pick(DPCKNN(k, metric=metric), tokens(x), 30)) == list(range(30))


def test_density_peaks_find_planted_clusters() -> None:
    centres = noise(4, 16) * 5
    x = centres.repeat_interleave(10, 0) + 0.1 * noise(40, 16, seed=1)

    kept = pick(DPCKNN(5), tokens(x), 4)

    assert {i // 10 for i in kept} == {0, 1, 2, 3}


def test_neighbours_follow_the_count_where_asked() -> None:
    c = tokens(noise(50))

    assert pick(DPCKNN(None), c, 12) == pick(DPCKNN(12), c, 12)
    assert pick(DPCKNN(7, capped=True), c, 3) == pick(DPCKNN(3), c, 3)
    assert pick(DPCKNN(7, capped=True), c, 12) == pick(DPCKNN(7), c, 12)
    assert pick(DPCKNN(), c, 0) == []


@pytest.mark.parametrize("select", SELECTIONS, ids=str)
def test_a_permutation_of_the_tokens_permutes_the_selection(select: Select) -> None:
    x, score = noise(30), scores(30)
    order = np.random.default_rng(1).permutation(30)

    kept = pick(select, tokens(x), 10, score)
    moved = pick(select, tokens(x[torch.as_tensor(order)]), 10, score[order])

    assert sorted(order[moved].tolist()) == sorted(kept)


@pytest.mark.parametrize("select", [*SELECTIONS, EvenOdd(3), Alike(0.0), TopK()], ids=str)
def test_a_selection_stays_in_its_group(select: Select) -> None:
    c, group = tokens(noise(40)), np.arange(7, 33, 2)
    alone = c.take(group)

    inside = select.choose(c, group, scores(40), 6)
    local = select.choose(alone, np.arange(13), scores(40)[group], 6)

    assert inside.centres.tolist() == group[local.centres].tolist()
    assert len(set(inside.centres.tolist())) == len(inside.centres)


@pytest.mark.parametrize(
    "select",
    [
        MaxMin("key"),
        Cover(0.4, "key"),
        DPCKNN(4, of="key"),
        EvenOdd(2, "key"),
        Alike(0.1, of="key"),
    ],
    ids=str,
)
def test_keys_of_the_encoder_in_place_of_features(select: Select) -> None:
    x, key = noise(24), noise(24, 5, seed=3)
    plain = replace(select, of="x")

    with_keys = pick(select, tokens(x, readings={"encoder_key": key}), 8)

    assert with_keys == pick(plain, tokens(key), 8)
    assert with_keys != pick(plain, tokens(x), 8) or isinstance(select, Alike)
    with pytest.raises(ProbeError, match=r'needs the keys of the vision encoder.*use of="x"$'):
        pick(select, tokens(x), 8)
    with pytest.raises(ProbeError, match='of="y" is not "x" or "key"'):
        pick(replace(select, of="y"), tokens(x), 8)


@pytest.mark.parametrize(
    "make",
    [
        lambda: EvenOdd(0),
        lambda: EvenOdd(order="random"),
        lambda: Pivots(visual=0, text=0),
        lambda: Alike(0.5, keep="both"),
        lambda: DPCKNN(0),
        lambda: DPCKNN(metric="l1"),
    ],
)
def test_bad_parameters_are_refused_in_one_line(make) -> None:
    with pytest.raises(ProbeError) as error:
        make()
    assert "\n" not in str(error.value)
