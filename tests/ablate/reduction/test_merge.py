"""Merges against scatter loops, and what they conserve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from probe.ablate.reduction.build import Step, weights
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.merge import Blend, Merge
from probe.ablate.reduction.merge_overlap import Gather, Neighbourhood
from probe.ablate.reduction.parts import Chosen, Rest
from probe.ablate.reduction.select import TopK
from probe.ablate.reduction.select_frames import Anchors, EachFrame
from probe.ablate.reduction.weights import Weights
from probe.errors import ProbeError

SIZE = 40
SCORE = np.random.default_rng(0).random(SIZE)
GROUP = np.arange(3, SIZE, 2)
PLAIN = [Merge(metric, weight) for metric in ("cos", "distance") for weight in ("mean", "mass")]
BLENDS = [Blend(0.6), Blend(0.6, own=True), Blend(0.1, counted=True), Blend(0.6, True, True)]


def clip(seed: int = 0) -> Candidates:
    generator = torch.Generator().manual_seed(seed)
    c = Candidates.grid(torch.randn(4, 2, 5, 6, generator=generator))
    key = torch.randn(SIZE, 3, generator=generator)
    mass = np.random.default_rng(1).integers(1, 5, SIZE).astype(float)
    return replace(c, mass=mass, readings={"encoder_key": key})


def made(rest: Rest, chosen: Chosen, c: Candidates | None = None) -> Weights:
    c = clip() if c is None else c
    return Weights.of_rows(rest.rows(c, GROUP, chosen, SCORE), SIZE)


def top(count: int) -> Chosen:
    return TopK().choose(clip(), GROUP, SCORE, count)


def similarity(c: Candidates, metric: str) -> np.ndarray:
    x = (c.readings["encoder_key"] if metric == "key" else c.x).double()
    if metric == "distance":
        return -torch.cdist(x, x).numpy()
    return torch.cosine_similarity(x[:, None], x[None], dim=-1).numpy()


def scattered(chosen: Chosen, near: np.ndarray) -> dict[int, list[int]]:
    """What joins each centre, by a loop."""
    joined: dict[int, list[int]] = {int(centre): [] for centre in chosen.centres}
    for token in GROUP:
        if token not in chosen.centres:
            targets = sorted(chosen.targets)
            joined[int(targets[int(np.argmax([near[token, t] for t in targets]))])].append(token)
    return joined


@pytest.mark.parametrize("metric", ["cos", "distance", "key"])
@pytest.mark.parametrize("count", [1, 5, 18])
def test_tokens_join_the_most_similar_centre(metric: str, count: int) -> None:
    c, chosen = clip(), top(count)

    w = made(Merge(metric), chosen)

    joined = scattered(chosen, similarity(c, metric))
    expected = np.zeros((count, SIZE))
    for row, centre in enumerate(chosen.centres):
        members = [int(centre), *joined[int(centre)]]
        expected[row, members] = 1 / len(members)
        assert w.mass[row] == c.mass[members].sum()
    np.testing.assert_allclose(w.dense(), expected, atol=1e-15)
    np.testing.assert_array_equal(w.anchor, chosen.centres)


def test_the_weights_of_centre_and_joined() -> None:
    c, chosen = clip(), top(4)
    joined = scattered(chosen, similarity(c, "cos"))

    for row, centre in enumerate(chosen.centres):
        cols = [int(centre), *joined[int(centre)]]
        n = len(cols) - 1
        assert n
        expected = {
            "mass": c.mass[cols] / c.mass[cols].sum(),
            "add": [1, *[1 / n] * n],
            "halving": _fold(n),
            Blend(0.6): [0.6, *[0.4 / n] * n],
            Blend(0.6, own=True): [0.6 + 0.4 / (n + 1), *[0.4 / (n + 1)] * n],
            Blend(0.1, counted=True): [1 / (n + 1), *[1 / (n + 1)] * n],
        }
        for weight, values in expected.items():
            line = made(Merge("cos", weight), chosen).dense()[row]
            np.testing.assert_allclose(line[cols], values, atol=1e-15)
            assert np.count_nonzero(line) == n + 1


def _fold(joined: int) -> np.ndarray:
    """(y + x) / 2, again and again."""
    y = np.eye(joined + 1)[0]
    for x in np.eye(joined + 1)[1:]:
        y = (y + x) / 2
    return y


def test_halving_folds_in_the_order_of_the_list() -> None:
    c, chosen = clip(), top(4)
    joined = scattered(chosen, similarity(c, "cos"))
    y = c.x.double().clone()
    for token in GROUP:
        for centre, members in joined.items():
            if token in members:
                y[centre] = (y[centre] + c.x[token].double()) / 2

    w = made(Merge("cos", "halving"), chosen)

    assert torch.allclose(w.apply(c.x.double()), y[torch.as_tensor(chosen.centres)], atol=1e-12)


@pytest.mark.parametrize("weight", ["mean", "mass", "halving", *BLENDS], ids=str)
def test_rows_sum_to_one_and_a_constant_field_stays(weight: str | Blend) -> None:
    w = made(Merge("cos", weight), top(5))

    np.testing.assert_allclose(w.gain, 1, atol=1e-15)
    assert np.allclose(w.dense() @ np.full(SIZE, 3.7), 3.7)


def test_added_means_double_the_gain() -> None:
    w = made(Merge("key", "add"), top(5))

    np.testing.assert_allclose(w.gain, 2)


@pytest.mark.parametrize("merge", PLAIN, ids=str)
def test_mass_is_conserved(merge: Merge) -> None:
    c = clip()
    w = made(merge, top(6))

    assert w.mass.sum() == c.mass[GROUP].sum()
    if merge.weight == "mass":
        before = (c.mass[GROUP, None] * c.x[torch.as_tensor(GROUP)].double().numpy()).sum(0)
        after = (w.mass[:, None] * w.apply(c.x.double()).numpy()).sum(0)
        np.testing.assert_allclose(after, before, atol=1e-12)


@pytest.mark.parametrize("weight", ["mean", "mass", "halving", "add", *BLENDS[:3]], ids=str)
def test_where_every_token_is_a_centre_nothing_happens(weight: str | Blend) -> None:
    step = Step(keep=1.0, rest=Merge("cos", weight))

    assert weights([step], clip()).is_identity
    assert made(Merge("cos", weight), Chosen(GROUP, GROUP)).is_selection


def test_the_own_centre_alone_is_itself() -> None:
    values = made(Merge("cos", BLENDS[3]), Chosen(GROUP, GROUP))

    assert values.is_selection


def test_only_targets_take_tokens() -> None:
    c = clip()
    chosen = TopK().then(TopK(), 3).choose(c, GROUP, SCORE, 6)

    w = made(Merge(), chosen)

    joined = scattered(chosen, similarity(c, "cos"))
    first = chosen.centres[:3]
    assert not set(first) & set(chosen.targets)
    for row, centre in enumerate(chosen.centres):
        assert np.count_nonzero(w.dense()[row]) == 1 + len(joined[int(centre)])
    assert (np.count_nonzero(w.dense()[:3], axis=1) == 1).all()
    none = Chosen(first, first[:0])
    assert made(Merge(), none).is_selection


@pytest.mark.parametrize("rest", [*PLAIN, Merge("key", BLENDS[3])], ids=str)
def test_merging_moves_with_a_permutation(rest: Merge) -> None:
    order = np.random.default_rng(2).permutation(SIZE)
    inverse = np.argsort(order)
    c, chosen = clip(), TopK().choose(clip(), np.arange(SIZE), SCORE, 7)

    plain = Weights.of_rows(rest.rows(c, np.arange(SIZE), chosen, SCORE), SIZE).raster()
    there = Chosen(inverse[chosen.centres], inverse[chosen.targets])
    moved = rest.rows(c.take(order), np.arange(SIZE), there, SCORE[order])

    back = Weights.of_rows(moved, SIZE).dense()[:, inverse]
    np.testing.assert_allclose(back, plain.dense(), atol=1e-15)


def test_every_anchor_frame_takes_every_token() -> None:
    # FastVID: a segment of 6 frames, anchors in its 2nd and 6th.
    x = torch.randn(6, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    c, group = Candidates.grid(x), np.arange(48)
    score = np.random.default_rng(3).random(48)
    blend = Blend(0.6, counted=True, own=True)
    select = EachFrame(TopK()).then(Anchors(TopK(), every=4), 12)
    chosen = select.choose(c, group, score, 18)

    w = Weights.of_rows(Merge("cos", blend, per="frame").rows(c, group, chosen, score), 48)

    salient, anchors = chosen.centres[:12], chosen.targets
    assert [int(c.frame[i]) for i in anchors] == [1, 1, 1, 5, 5, 5]
    near = similarity(c, "cos")
    others = [i for i in group if i not in salient]
    expected = np.zeros((18, 48))
    expected[np.arange(12), salient] = 1
    for frame in (1, 5):
        targets = [int(i) for i in anchors if c.frame[i] == frame]
        for target in targets:
            members = [i for i in others if targets[int(np.argmax(near[i, targets]))] == target]
            beta = max(0.6, 1 / (len(members) + 1))
            row = chosen.centres.tolist().index(target)
            expected[row, members] = (1 - beta) / len(members)
            expected[row, target] += beta
    np.testing.assert_allclose(w.dense(), expected, atol=1e-15)
    np.testing.assert_allclose(w.mass.sum(), 48)


@pytest.mark.parametrize("u", [0.3, 0.9])
def test_a_neighbourhood_is_all_that_is_near(u: float) -> None:
    c, chosen = clip(), top(8)
    near = 1 - similarity(c, "cos")

    w = made(Neighbourhood(u, 0.3), chosen)

    expected = np.zeros((8, SIZE))
    for row, centre in enumerate(chosen.centres):
        members = [i for i in GROUP if i == centre or near[centre, i] < u]
        expected[row, members] = 0.7 / len(members)
        expected[row, centre] += 0.3
    np.testing.assert_allclose(w.dense(), expected, atol=1e-15)
    np.testing.assert_allclose(w.gain, 1)
    covered = np.flatnonzero(expected.any(0))
    np.testing.assert_allclose(w.mass.sum(), c.mass[covered].sum())
    assert (np.count_nonzero(expected, axis=0) > 1).any() == (u == 0.9)


@pytest.mark.parametrize("u", [-1.0, 0.0, 1e-6])
def test_an_empty_neighbourhood_changes_nothing(u: float) -> None:
    assert made(Neighbourhood(u), top(8)).is_selection


@pytest.mark.parametrize("of", ["key", "x"])
def test_gathered_is_the_centre_and_its_scored_neighbours(of: str) -> None:
    c, chosen = clip(), top(8)
    near = similarity(c, "key" if of == "key" else "cos")

    w = made(Gather(5, of), chosen)

    expected = np.zeros((8, SIZE))
    for row, centre in enumerate(chosen.centres):
        others = sorted((i for i in GROUP if i != centre), key=lambda i: -near[centre, i])
        expected[row, others[:5]] = SCORE[others[:5]]
        expected[row, centre] = 1
    np.testing.assert_allclose(w.dense(), expected)
    assert (w.gain > 1).all()
    assert made(Gather(0), chosen).is_selection
    assert (np.count_nonzero(made(Gather(99), chosen).dense(), axis=1) == len(GROUP)).all()


@pytest.mark.parametrize("rest", [Merge("key"), Gather(), Neighbourhood(0.2, of="key")], ids=str)
def test_keys_that_were_not_read_are_refused(rest: Rest) -> None:
    with pytest.raises(ProbeError, match="which were not read here"):
        made(rest, top(4), replace(clip(), readings={}))
    assert [str(leaf) for leaf in rest.leaves()] == ["Keys()"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Merge("l1"),
        lambda: Merge(weight="max"),
        lambda: Merge(per="video"),
        lambda: Blend(1.2),
        lambda: Neighbourhood(0.2, 1.2),
        lambda: Gather(-1),
    ],
)
def test_bad_parameters_are_refused_in_one_line(make) -> None:
    with pytest.raises(ProbeError) as error:
        make()
    assert "\n" not in str(error.value)
