"""Merges: each method against plain loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from probe.ablate.recipes.token_merging import framefusion, prumerge, tome, visionzip
from probe.ablate.reduce import Reduce
from probe.ablate.reduction.budget import Keep
from probe.ablate.scores_attention import LastQuery
from probe.ablate.scores_encoder import CLS
from probe.ablate.scores_wide import WideCLS
from probe.ablate.sites import mid
from tests.ablate.recipes.peers import FIELDS, cos, field, made, same, seen, top

fields = pytest.mark.parametrize("kind", FIELDS)
PLACES = 12  # tokens of a frame


def frame(t: int) -> list[int]:
    return list(range(t * PLACES, (t + 1) * PLACES))


# -- ToMe ---------------------------------------------------------------------------------


@fields
@pytest.mark.parametrize("r", [1, 4, 6, 9])
def test_tome_is_its_loop(kind: str, r: int) -> None:
    first = tome(r, layers=2)[0]
    c = seen(first, field(kind, 3))
    mass = np.random.default_rng(0).integers(1, 4, 36).astype(float)
    c = replace(c, mass=mass)
    key, rows, total = c.readings["encoder_key"].numpy(), {}, {}
    for t in range(3):
        even, odd = frame(t)[::2], frame(t)[1::2]
        match = {i: max(odd, key=lambda j: (cos(key[i], key[j]), -j)) for i in even}
        best = sorted(even, key=lambda i: (-cos(key[i], key[match[i]]), i))
        gone = best[: min(r, PLACES // 2)]
        for j in [i for i in frame(t) if i not in gone]:
            joined = [j, *(i for i in gone if match[i] == j)]
            total[j] = sum(mass[i] for i in joined)
            rows[j] = {i: mass[i] / total[j] for i in joined}

    w = made(first, c)
    same(w, rows)
    np.testing.assert_allclose(w.mass, list(total.values()))
    x = c.x.numpy()
    after = (w.mass[:, None] * (w.dense() @ x)).sum(0)
    np.testing.assert_allclose(after, (mass[:, None] * x).sum(0))


def test_tome_is_at_each_of_the_layers() -> None:
    stages: list[Any] = tome(3, layers=4)
    assert [(s.at.layer, s.pool.keys.layer, s.pool.r) for s in stages] == [
        (n, n, 3) for n in range(4)
    ]
    assert all(made(s, seen(s, field("random"))).is_identity for s in tome(0, layers=2))


# -- VisionZip ----------------------------------------------------------------------------


@fields
@pytest.mark.parametrize(("tokens", "dominant"), [(7, 4), (5, 0.5), (12, 8), (30, 8)])
def test_visionzip_is_its_loop(kind: str, tokens: int, dominant: float) -> None:
    one = visionzip(tokens, dominant=dominant)
    c = seen(one, field(kind, 3))
    key, score, rows = c.readings["encoder_key"].numpy(), c.readings[CLS()].numpy(), {}
    for t in range(3):
        count = min(tokens, PLACES)
        size = int(dominant) if isinstance(dominant, int) else int(count * dominant)
        best = top(frame(t), score, size)
        left = [i for i in frame(t) if i not in best]
        step = max(1, len(left) // (count - size))
        centres = left[::step][: count - size]
        assert len(centres) == count - size
        rows |= {i: {i: 1.0} for i in best}
        joined: dict[int, list[int]] = {centre: [] for centre in centres}
        for i in left:
            if i not in centres:
                joined[max(centres, key=lambda j: (cos(key[i], key[j]), -j))].append(i)
        for centre, others in joined.items():
            rows[centre] = {centre: 1.0} | {i: 1 / len(others) for i in others}

    same(made(one, c), rows)


def test_published_counts_of_visionzip() -> None:
    x = field("random", 1, 24, 24)
    picture = visionzip(63, dominant=53)  # the 54th is CLS itself
    w = made(picture, seen(picture, x))
    assert len(w) == 63 and int((w.gain < 1.5).sum()) == 53 and np.allclose(w.gain[53:], 2)
    video = visionzip()
    w = made(video, seen(video, field("random", 2, 14, 14)))
    assert len(w) == 100 and int(np.isclose(w.gain, 2).sum()) == 16


# -- PruMerge -----------------------------------------------------------------------------


@fields
@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize(("k", "factor"), [(3, 0.2), (32, 1.5)])
def test_prumerge_is_its_loop(kind: str, plus: bool, k: int, factor: float) -> None:
    one = prumerge(plus, k, factor)
    c = seen(one, field(kind, 3))
    key, score, rows = c.readings["encoder_key"].numpy(), c.readings[WideCLS(-1)].numpy(), {}
    for t in range(3):
        values = sorted(score[frame(t)])
        low, high = (np.interp(q * (PLACES - 1), range(PLACES), values) for q in (0.25, 0.75))
        count = max(1, sum(score[i] > high + factor * (high - low) for i in frame(t)))
        centres = top(frame(t), score, count)
        if plus:
            step = max(1, PLACES // count // 3)
            centres = sorted({*centres, *frame(t)[: PLACES - 1 : step]})
        for centre in centres:
            others = [i for i in frame(t) if i != centre]
            near = sorted(others, key=lambda i: (-cos(key[centre], key[i]), i))[:k]
            rows[centre] = {centre: 1.0} | {i: float(score[i]) for i in near}
        left = [i for i in frame(t) if i not in centres]
        if left:
            rows[left[-1]] = {i: float(score[i]) for i in left}

    same(made(one, c), rows)


# -- FrameFusion --------------------------------------------------------------------------


def fused(x: np.ndarray, time: int, tau: float, most: int) -> dict:
    """Runs of places whose cosine with the frame before is at least tau, the most alike first."""
    alike = {i: cos(x[i], x[i - PLACES]) for i in range(PLACES, time * PLACES)}
    joins = sorted((i for i in alike if alike[i] >= tau), key=lambda i: (-alike[i], i))[:most]
    first: dict[int, int] = {}
    for i in range(time * PLACES):
        first[i] = first[i - PLACES] if i in joins else i
    runs: dict[int, list[int]] = {}
    for i, start in first.items():
        runs.setdefault(start, []).append(i)
    return {start: dict.fromkeys(run, 1 / len(run)) for start, run in runs.items()}


@fields
@pytest.mark.parametrize(("tau", "cost"), [(0.6, 0.3), (0.9, 0.8), (1.1, 0.3), (-1.0, 0.5)])
def test_framefusion_merges_runs_of_places(kind: str, tau: float, cost: float) -> None:
    one = framefusion(cost, tau)[0]
    c = seen(one, field(kind, 5))

    same(made(one, c), fused(c.x.numpy(), 5, tau, int((1 - cost) * 60 + 1e-9)))


def test_framefusion_leaves_one_frame_of_a_static_clip() -> None:
    one = framefusion(0.1, layers=4)[0]
    assert len(made(one, seen(one, field("constant", 9)))) == PLACES


@pytest.mark.parametrize("cost", [0.3, 0.5, 0.9])
def test_framefusion_without_merging_is_fastv_at_its_cost(cost: float) -> None:
    stages = framefusion(cost, tau=1.1)
    c = seen(stages[1], field("random", 5))
    assert made(stages[0], c).is_identity
    fastv = Reduce(at=mid(0), score=LastQuery(0), budget=Keep((28 * cost - 1) / 27, "round"))
    at_one = replace(c, spent=(60,))
    (reading,) = c.readings.values()
    fastv_seen = replace(at_one, readings={LastQuery(0): reading})
    assert stages[1].at == mid(0)

    w = made(stages[1], at_one)
    np.testing.assert_array_equal(w.dense(), made(fastv, fastv_seen).dense())
    later = seen(stages[2], field("random", 5)).take(w.anchor)
    assert made(stages[2], replace(later, total=60, spent=(60, len(w)))).is_identity


def test_framefusion_merges_until_few_are_alike_and_then_cuts_once() -> None:
    stages = framefusion(0.4, 0.6, layers=8)
    x = field("drifting", 5)
    c = seen(stages[0], x)
    first = made(stages[0], c)
    assert len(first) < 0.9 * 60
    c = seen(stages[1], x).after(first)
    second = made(stages[1], replace(c, spent=(len(first),)))
    counts = [len(first), len(second)]
    assert len(second) > 0.9 * len(first) or second.gain == pytest.approx(1)
    while len(counts) < 8:
        number = len(counts)
        # the same features come again, so that nothing is left to merge
        again = replace(c.take(np.arange(counts[-1])), spent=tuple(counts), total=60)
        readings = {leaf: c.readings[LastQuery()][: len(again)] for leaf in stages[number].leaves}
        counts.append(len(made(stages[number], replace(again, readings=readings))))
    assert sum(counts) == pytest.approx(0.4 * 8 * 60, abs=4)


@fields
def test_framefusion_with_neutral_parameters_is_the_identity(kind: str) -> None:
    for number, stage in enumerate(framefusion(1.0, tau=1.1, layers=4)):
        c = replace(seen(stage, field(kind)), spent=(72,) * number)
        assert made(stage, c).is_identity
