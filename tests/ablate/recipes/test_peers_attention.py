"""Attention pruning: each method against plain loops, its scores against dense maps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from probe.ablate.recipes.attention_pruning import dart, mustdrop, pyramiddrop, sparsevlm
from probe.ablate.reduce import fastv
from probe.ablate.reduction.attended import HalfTextQuery, TextPeak, TextRows
from probe.ablate.reduction.candidates import Candidates
from probe.ablate.reduction.rest import Drop
from probe.ablate.scores_attention import KeyNorm, LastQuery
from probe.ablate.scores_encoder import CLS, EncoderReceived
from probe.ablate.scores_text import Raters, TextQuery
from probe.errors import ProbeError
from tests.ablate.recipes.peers import (
    FIELDS,
    cos,
    field,
    made,
    nearest,
    peaks,
    same,
    seen,
    top,
    units,
)
from tests.ablate.scores.host import candidates
from tests.tiny import dense, example

fields = pytest.mark.parametrize("kind", FIELDS)


# -- DART ---------------------------------------------------------------------------------


@fields
@pytest.mark.parametrize(("keep", "visual", "text"), [(0.4, 4, 4), (0.5, 3, 1), (0.3, 1, 4)])
def test_dart_is_its_loop(kind: str, keep: float, visual: int, text: int) -> None:
    one = dart(2, keep, visual, text)
    c = seen(one, field(kind))
    x, norm, n = c.x.numpy(), c.readings[KeyNorm()].numpy(), len(c)
    kept = top(range(n), norm, visual)
    each = int(n * keep) // (visual + text)
    for number in range(visual + text):
        left = [i for i in range(n) if i not in kept]
        if number < visual:
            alike = {i: cos(x[i], x[kept[number]]) for i in left}
        else:
            column = c.readings["text_pivots"][:, number - visual]
            alike = {i: float(column[i]) for i in left}
        kept += sorted(left, key=lambda i: (alike[i], i))[:each]

    same(made(one, c), units(sorted(kept)))


def test_published_count_of_dart() -> None:
    one = dart()
    assert len(made(one, seen(one, field("random", 1, 24, 24)))) == 124
    for keep in (0.1, 0.33, 0.7):
        w = made(dart(2, keep), seen(one, field("random", 5)))
        assert len(w) == 4 + 8 * (int(60 * keep) // 8)
    assert made(dart(2, 1.0), seen(one, field("random", 5, 1, 3))).is_identity


# -- PyramidDrop --------------------------------------------------------------------------


def in_turn(stages: list, c: Candidates) -> list[Candidates]:
    """What each stage leaves to the next, features and readings aside."""
    left = []
    for stage in stages:
        own = replace(c, readings={k: v[c.position] for k, v in readings_of(stage, c).items()})
        c = replace(own.after(made(stage, own)), total=c.total)
        left.append(c)
    return left


def readings_of(stage, c: Candidates) -> dict:
    return seen(stage, field("random", int(c.total) // 12)).readings


def test_pyramiddrop_halves_the_original_count_each_time() -> None:
    stages: list[Any] = pyramiddrop()
    left = in_turn(stages, seen(stages[0], field("random", 7)))
    score = readings_of(stages[0], left[0])[LastQuery(8)].numpy()

    assert [stage.at.k for stage in stages] == [8, 16, 24]
    assert [len(c) for c in left] == [42, 21, 10] == [int(84 * rate) for rate in (0.5, 0.25, 0.125)]
    assert left[0].position.tolist() == sorted(top(range(84), score, 42))
    layers = [84] * 8 + [42] * 8 + [21] * 8 + [10.5] * 8
    assert sum(layers) / 32 / 84 == pytest.approx(0.469, abs=5e-4)


@fields
@pytest.mark.parametrize("keep", [0.5, 0.25])
def test_pyramiddrop_with_one_stage_is_fastv_up_to_the_layer_it_reads(kind, keep) -> None:
    (one,) = pyramiddrop([3], [keep])
    c = seen(one, field(kind))
    plain = replace(fastv(3, keep), score=LastQuery(3))

    np.testing.assert_array_equal(made(one, c).dense(), made(plain, c).dense())


# -- SparseVLM ----------------------------------------------------------------------------


@fields
@pytest.mark.parametrize("count", [288, 110])
def test_sparsevlm_recycles_as_its_loop_does(kind: str, count: int) -> None:
    (one,) = sparsevlm(layers=[2], counts=[count])
    c = seen(one, field(kind))
    x, score, n = c.x.numpy(), c.readings[TextQuery(2, Raters())].numpy(), len(c)
    kept = top(range(n), score, round(n * count / 576))
    others = [i for i in range(n) if i not in kept]
    some = sorted(top(others, score, int(len(others) * 0.3) + 1))
    clusters = int(len(some) / 10) + 1
    centres = peaks(x, some, clusters, clusters)
    joined = {centre: [centre] for centre in centres}
    for i in some:
        if i not in joined:
            joined[nearest(x, i, centres)].append(i)
    rows = units(kept) | {j: dict.fromkeys(tokens, 1 / len(tokens)) for j, tokens in joined.items()}

    same(made(one, c), {anchor: rows[anchor] for anchor in sorted(rows)})


@pytest.mark.parametrize(("tokens", "mean"), [(192, 188), (128, 124), (64, 62)])
def test_published_counts_of_sparsevlm(tokens: int, mean: int) -> None:
    for variant in ("v1", "v2"):
        stages: list[Any] = sparsevlm(tokens, variant)
        stages = [replace(s, rest=Drop()) for s in stages]
        left = [len(c) for c in in_turn(stages, seen(stages[0], field("random", 48)))]
        a, b, d = left
        if variant == "v1":
            assert (576 * 2 + a * 4 + b * 9 + d * 17) / 32 == pytest.approx(mean, abs=0.4)
        assert [s.at.k for s in stages] == [2, 6, 15]
    first = sparsevlm(tokens)[0]
    w = made(first, seen(first, field("random", 48)))
    dropped = 576 - [300, 303, 66][[192, 128, 64].index(tokens)]
    assert len(w) == 576 - dropped + (int(dropped * 0.3) + 1) // 10 + 1


def test_sparsevlm_v2_recycles_nothing_and_keeps_positions() -> None:
    for one in sparsevlm(64, "v2"):
        assert (one.position, one.rest.kind) == ("keep", "drop")
        assert isinstance(one.score, HalfTextQuery)
    assert all(one.position == "reindex" for one in sparsevlm(64))


def test_sparsevlm_takes_the_rank_of_attention() -> None:
    (one,) = sparsevlm(rank=True, layers=[1])
    c = seen(replace(one, budget=None, keep=0.5), field("random"))
    g = np.random.default_rng(0)
    rows = g.normal(size=(len(c), 3)) @ g.normal(size=(3, 9))
    c = replace(c, readings=c.readings | {TextRows(1, Raters()): c.x.new_tensor(rows)})
    dropped = len(c) - 3

    assert len(made(one, c)) == 3 + (int(dropped * 0.3) + 1) // 10 + 1


# -- MustDrop -----------------------------------------------------------------------------


@fields
@pytest.mark.parametrize("tau", [0.8, 0.2])
def test_mustdrop_merges_uniform_tiles(kind: str, tau: float) -> None:
    (one,) = mustdrop(tau)
    c = seen(one, field(kind, 3, 4, 5))
    mass = np.random.default_rng(1).integers(1, 4, len(c)).astype(float)
    c = replace(c, mass=mass)
    x, rows = c.x.numpy(), {}
    for t in range(3):
        for down in (0, 1):
            for right in (0, 1):
                tile = [
                    t * 20 + r * 5 + k for r in range(4) for k in range(5)
                    if r // 3 == down and k // 3 == right
                ]  # fmt: skip
                pairs = [cos(x[a], x[b]) for a in tile for b in tile if a != b]
                if np.mean(pairs).round(9) >= tau:
                    rows[tile[-1]] = {i: mass[i] / mass[tile].sum() for i in tile}
                else:
                    rows |= units(tile)

    same(made(one, c), {anchor: rows[anchor] for anchor in sorted(rows)})


@fields
@pytest.mark.parametrize(
    ("share", "peak", "key"), [(0.02, 0.6, 0.08), (1.0, 0.7, 0.3), (0.015, 0.9, 0)]
)
def test_mustdrop_drops_what_the_text_does_not_see(kind, share, peak, key) -> None:
    _, one, *_ = mustdrop(0.5, share, peak, key)
    c = seen(one, field(kind, 4))
    mass, most, cls = (c.readings[k].numpy() for k in (TextQuery(), TextPeak(), CLS(layer=-1)))
    kept = [i for i in range(48) if not (mass[i] < share * mass.sum() and most[i] < peak)]
    size = int(np.ceil(key * 12 - 1e-9))
    for t in range(4):
        kept += top(range(t * 12, t * 12 + 12), cls, size)

    same(made(one, c), units(sorted(set(kept))))


def test_published_key_set_and_defaults_of_mustdrop() -> None:
    # nothing is attended to: the key set alone stays
    _, one, *_ = mustdrop(0.5, peak=2.0)
    c = seen(one, field("random", 1, 24, 24))
    w = made(one, c)
    assert len(w) == 47 == int(np.ceil(0.08 * 576))
    left = replace(c.after(w), total=576)
    assert made(one, left).is_identity  # the same key set in the next layer
    assert len(mustdrop()) == 1  # the released thresholds drop nothing in the language model
    stages: list[Any] = mustdrop(2, peak=0.1)
    assert [str(s)[-3:] for s in stages] == ["[0]", "[1]", "[2]", "[3]", "[4]"]
    assert [s.at.k for s in stages[:4]] == [2, 6, 10, 14] and stages[4].layers == "2-13"


# -- scores -------------------------------------------------------------------------------


def test_peaks_and_rows_of_the_text_are_those_of_dense_maps(pair) -> None:
    model, eager = pair
    x = example(model)
    maps, video = dense(eager, x), x.layout.select("video")
    text = x.layout.select("question")
    rows = maps[1][:, text][:, :, video].mean(0)
    c = candidates(model, x, TextPeak(), TextRows(), HalfTextQuery(), site=2)

    np.testing.assert_allclose(c.readings[TextPeak()], rows.max(0), atol=1e-6)
    np.testing.assert_allclose(c.readings[TextRows()], rows.T, atol=1e-6)
    by_head = maps[1][:, text][:, :, video].mean(1)
    order = np.argsort(-by_head.sum(1), kind="stable")[: model.n_heads // 2]
    np.testing.assert_allclose(c.readings[HalfTextQuery()], by_head[order].mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pyramiddrop([1, 2], [0.5]), "pyramiddrop: 2 layers with 1 values"),
        (lambda: sparsevlm(100), "sparsevlm: tokens=100"),
        (lambda: sparsevlm(variant="v3"), "variant='v3'"),
        (lambda: sparsevlm(layers=[1]), "1 layers with 3 values"),
        (lambda: dart(text=0), "at least one pivot of each"),
        (lambda: mustdrop(2), "leave nothing to do"),
    ],
)
def test_wrong_arguments(make, words: str) -> None:
    with pytest.raises(ProbeError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_tower_without_cls_is_told_what_can_stand_for_it(tiny) -> None:
    x = example(tiny)
    with pytest.raises(ProbeError, match=r"no CLS token; EncoderReceived\(\) can stand") as error:
        tiny.run(x, ablate=mustdrop(2, 0.5, 0.5, layers=[1, 2]))
    assert "\n" not in str(error.value)
    run = tiny.run(x, ablate=mustdrop(2, 0.9, 0.9, 0.5, layers=[1], score=EncoderReceived()))
    assert run.kept.values[1].sum() < run.kept.values[0].sum()
