"""Recipes that leave visual tokens out of later layers, or out of single ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import Knockout, LastQuery, Norm, Random, Received, fastv
from probe.ablate.recipes.layer_pruning import atp, mod_skip, mqt, relevance_prune, yopo_drop
from probe.ablate.scores_relevance import Relevance
from probe.capture import Activations
from probe.models.video_model import VideoModel
from tests.ablate.plain import Absent, named
from tests.ablate.recipes.by_hand import embedded, logits
from tests.ablate.test_oracles import check_definition
from tests.tiny import dense, example, twin

NAMES = ["tiny", "video_llava", "qwen2_5_vl"]


def shown(model: VideoModel, **more):
    from tests.families import models

    return models.example(model, **more)


@pytest.mark.parametrize("name", NAMES)
def test_yopo_drop_is_fastv_that_keeps_nothing(name: str, request) -> None:
    model = named(request, name)
    x = shown(model)
    for k in (1, 2, 3):
        run, same = (model.run(x, ablate=[one]) for one in (yopo_drop(k), fastv(k, 0.0)))
        assert np.array_equal(run.logits, same.logits)
        np.testing.assert_array_equal(run.kept, same.kept)
        text = len(x.layout) - len(x.layout.select("video"))
        assert run.cost.kv_length == tuple(
            len(x.layout) if n < k else text for n in range(model.n_layers)
        )


def test_yopo_drop_is_the_definition_and_blindness(tiny: VideoModel) -> None:
    check_definition(tiny, [yopo_drop(2)])
    x = example(tiny)
    blind = Knockout("video -> text + newline", layers=range(2, 4))
    run = tiny.run(x, ablate=[yopo_drop(2)])
    np.testing.assert_allclose(tiny.run(x, ablate=[blind]).logits, run.logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("score", [Norm(), Random(3), Received()], ids=str)
@pytest.mark.parametrize("k", [1, 2])
def test_skipped_rows_pass_by(tiny: VideoModel, score, k: int) -> None:
    """Bit for bit what entered the layer; no key of theirs is in it."""
    x = example(tiny)
    site = [Activations("residual", "all")]
    clean = tiny.run(x, site).data.activations.values
    run = tiny.run(x, site, ablate=mod_skip((k,), keep=0.5, score=score))
    stream = run.data.activations.values
    (one,) = run.reductions
    gone = one.dropped
    left = np.setdiff1d(np.arange(len(x.layout)), gone)
    assert np.array_equal(stream[k + 1, gone], clean[k, gone])
    assert (stream[k + 1, left] != clean[k, left]).any(-1).all()
    assert np.bincount(x.layout.group[gone]).tolist() == [2] * 5
    n = len(x.layout)
    assert run.cost.kv_length == tuple(n - 10 if layer == k else n for layer in range(4))
    np.testing.assert_array_equal(run.kept.values.sum(1), run.cost.kv_length)


def test_several_layers_skip(tiny: VideoModel) -> None:
    x = example(tiny)
    n = len(x.layout)
    generated = tiny.generate(x, ablate=mod_skip((1, 3), keep=0.2), max_new_tokens=4)
    assert generated.cost.kv_length == (n + 3, n - 20 + 3, n + 3, n - 20 + 3)
    run = tiny.run(tiny.force(x, generated.meta["generated"]), ablate=mod_skip((1, 3), keep=0.2))
    np.testing.assert_allclose(generated.logits, run.logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny", "qwen2_5_vl"])
def test_mod_that_keeps_nothing_is_layer_drop_for_one_layer(name: str, request) -> None:
    """The text of that layer as if no video were there, the video as if the layer were not."""
    model = named(request, name)
    x = shown(model)
    run = model.run(x, ablate=mod_skip((2,), keep=0.0))
    same = model.run(x, ablate=[Absent(2)])
    np.testing.assert_allclose(run.logits, same.logits, rtol=0, atol=1e-6)
    video = torch.as_tensor(x.layout.select("video"))
    text = torch.as_tensor(np.setdiff1d(np.arange(len(x.layout)), video))
    seen: dict[str, torch.Tensor] = {}

    def before(h, ids):
        seen.update(h=h, ids=ids)
        return h[text], ids[..., text]

    def after(h, ids):
        whole = seen["h"].clone()
        whole[text] = h
        return whole, seen["ids"]

    ids = x.inputs["position_ids"][..., 0, :]
    expected = logits(model, embedded(model, x), ids, {2: before, 3: after})
    np.testing.assert_allclose(run.logits[0], expected, rtol=0, atol=2e-5)


def test_mod_that_keeps_all_is_neutral(tiny: VideoModel) -> None:
    x = example(tiny)
    skip = mod_skip((1, 2), keep=1.0)
    assert np.array_equal(tiny.run(x, ablate=skip).logits, tiny.run(x).logits)
    with pytest.raises(ProbeError, match="layer 4 does not exist"):
        tiny.run(x, ablate=mod_skip((4,), keep=0.5))


def test_atp_without_a_lattice_is_fastv(tiny: VideoModel) -> None:
    x = example(tiny)
    one = atp(2, 0.3, score=LastQuery(), lattice=False)
    assert one == fastv(2, 0.3)
    every = atp(1, 0.25, 1, 1)
    assert np.array_equal(tiny.run(x, ablate=[every]).logits, tiny.run(x).logits)


@pytest.mark.parametrize(("row", "col", "time"), [(2, 2, 1), (1, 2, 2), (2, 1, 3)])
def test_atp_keeps_the_best_and_the_lattice(other: VideoModel, row: int, col: int, time: int):
    x = example(other, answer="red")
    layout, video = x.layout, x.layout.select("video")
    maps = dense(twin(other), x)[0]
    questions = layout.select("question")
    score = maps[:, questions][..., video].mean((0, 1))
    count = len(video) - round(len(video) * 0.8)
    best = video[np.argsort(-score, kind="stable")[:count]]
    on = (layout.row[video] % row == 0) & (layout.col[video] % col == 0)
    on &= layout.group[video] % time == 0
    run = other.run(x, ablate=[atp(1, 0.2, row, col, time)])
    there = np.flatnonzero(run.kept.values[1])
    expected = np.union1d(best, video[on])
    np.testing.assert_array_equal(there[np.isin(there, video)], expected)
    assert len(expected) > max(len(best), on.sum())


def test_relevance_keeps_the_most_relevant(tiny: VideoModel) -> None:
    x = example(tiny)
    video = x.layout.select("video")
    for target in (None, "r"):
        values = Relevance(target).ahead(tiny, x)[video]
        best = np.sort(video[np.argsort(-values, kind="stable")[:10]])
        runs = [tiny.run(x, ablate=[relevance_prune(0.5, target)]) for _ in range(2)]
        there = np.flatnonzero(runs[0].kept.values[0])
        np.testing.assert_array_equal(there[np.isin(there, video)], best)
        assert np.array_equal(runs[0].logits, runs[1].logits)
    assert np.array_equal(tiny.run(x, ablate=[relevance_prune(1.0)]).logits, tiny.run(x).logits)


@pytest.mark.parametrize("name", NAMES)
def test_mqt_keeps_the_first_of_each_frame(name: str, request) -> None:
    model = named(request, name)
    x = shown(model)
    video = x.layout.select("video")
    groups = x.layout.group[video]
    for m in (1, 3):
        there = np.flatnonzero(model.run(x, ablate=[mqt(m)]).kept.values[0])
        first = np.concatenate([video[groups == g][:m] for g in np.unique(groups)])
        np.testing.assert_array_equal(there[np.isin(there, video)], first)
    most = int(np.bincount(groups).max())
    for m in (most, 256):
        assert np.array_equal(model.run(x, ablate=[mqt(m)]).logits, model.run(x).logits)
