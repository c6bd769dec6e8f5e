"""Oracles 1 to 3: neutral, text only, and the dense definition in prefill and decode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from probe.ablate import Knockout, Norm, NoRope, Random, Reduce, edvt, fastv, layer
from probe.engine import forward, generate
from probe.engine.call import AttentionCall
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from tests.ablate.cases import ACTIVE
from tests.decoder import decode, pairs
from tests.tiny import example

Pair = tuple[VideoModel, VideoModel]
TOLERANCE = 1e-5
DEFINITION = 1e-5  # float32 against float64
NEUTRAL = [
    Reduce(keep=1.0),
    Reduce(at=layer(0), score=Norm(), keep=1),
    fastv(k=1, keep=1.0),
    Reduce(keep_tokens=2, of=[4, 5]),
    Knockout([]),
    NoRope([]),
]


def definition(model: VideoModel, x: Example, ablations: list, kept: np.ndarray) -> np.ndarray:
    """Logits by the plain decoder, with dense maps and the kept sets of the run."""
    layout = x.layout
    cut = {n: np.zeros((len(layout), len(layout)), bool) for n in range(model.n_layers)}
    plain = {n: table.copy() for n, table in cut.items()}
    for one in ablations:
        if isinstance(one, Knockout | NoRope):
            tables = cut if isinstance(one, Knockout) else plain
            layers = range(model.n_layers) if one.layers == "all" else one.layers
            layers = (layers,) if isinstance(layers, int) else layers
            layers = (0, 1) if layers == "0-1" else layers
            for source, destination in layout.edges(one.edges):
                for number in layers:
                    tables[number] |= pairs(x, source, destination)
    return decode(model, x, cut, plain, kept)


@pytest.mark.parametrize("neutral", NEUTRAL, ids=str)
def test_neutral_is_bit_identical_and_so_nearly_is_its_full_path(
    model: VideoModel, neutral, monkeypatch
) -> None:
    redone: list[int] = []
    redo = AttentionCall.redo
    monkeypatch.setattr(
        AttentionCall,
        "redo",
        lambda call, output, rows: redone.append(len(rows)) or redo(call, output, rows),
    )
    x, y = example(model, answer="red"), example(model)
    run, gen = model.run(x), model.generate(y, max_new_tokens=4)
    assert np.array_equal(model.run(x, ablate=[neutral]).logits, run.logits)
    assert np.array_equal(model.generate(y, ablate=[neutral], max_new_tokens=4).logits, gen.logits)
    assert not redone
    forced = forward.run(model, x, ablations=[neutral], force=True)
    assert redone == [len(x.layout)] * model.n_layers
    np.testing.assert_allclose(forced.logits, run.logits, rtol=0, atol=TOLERANCE)
    forced = generate.generate(model, y, ablations=[neutral], max_new_tokens=4, force=True)
    np.testing.assert_allclose(forced.logits, gen.logits, rtol=0, atol=TOLERANCE)


def test_the_full_path_of_active_ablations_is_the_same(model: VideoModel) -> None:
    x = example(model, answer="red")
    for one in ACTIVE:
        run = model.run(x, ablate=[one])
        forced = forward.run(model, x, ablations=[one], force=True)
        np.testing.assert_allclose(forced.logits, run.logits, rtol=0, atol=TOLERANCE)
        assert np.abs(run.logits - model.run(x).logits).max() > 1e-3, f"{one} changes nothing"


def test_no_rope_where_all_positions_are_equal_is_the_identity(model: VideoModel) -> None:
    x = example(model, answer="red")
    for position in (0, 37):
        same = torch.full_like(x.inputs["position_ids"], position)
        y = replace(x, inputs=x.inputs | {"position_ids": same})
        run = model.run(y, ablate=[NoRope("all -> all")])
        np.testing.assert_allclose(run.logits, model.run(y).logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "one",
    [a for a in ACTIVE if "question -> text" not in str(a) and "template" not in str(a)],
    ids=str,
)
def test_text_only_is_bit_identical(tiny: VideoModel, one) -> None:
    x, y = example(tiny, None, answer="red"), example(tiny, None)
    assert np.array_equal(tiny.run(x, ablate=[one]).logits, tiny.run(x).logits)
    ablated = tiny.generate(y, ablate=[one], max_new_tokens=4)
    assert np.array_equal(ablated.logits, tiny.generate(y, max_new_tokens=4).logits)


def test_text_edges_act_without_a_clip_too(tiny: VideoModel) -> None:
    x = example(tiny, None)
    one = Knockout(["video -> last", "question -> last"])
    assert not np.allclose(tiny.run(x, ablate=[one]).logits, tiny.run(x).logits, atol=1e-3)


@pytest.mark.parametrize("one", ACTIVE, ids=str)
def test_prefill_and_decode_are_the_definition(pair: Pair, one) -> None:
    for model in pair:
        check_definition(model, [one])


def test_combinations_are_the_definition(pair: Pair) -> None:
    several = [
        [fastv(1, 0.5), edvt(), Knockout("frame 1 -> text", layers=[0])],
        [
            Knockout("question -> last"),
            NoRope("video + question -> text", layers=[0, 1]),
            Reduce(at=layer(2), score=Norm(), keep_tokens=3),
        ],
        [Reduce(at=layer(0), score=Random(), keep=0.8), fastv(2, 0.5)],
        [fastv(1, 0.5), Reduce(at=layer(1), score=Random(), keep=0.2)],
        [
            NoRope("video -> text"),
            NoRope("frame 0 -> question"),
            Knockout("frame 2 -> text", layers=[1]),
        ],
    ]
    for ablations in several:
        for model in pair:
            check_definition(model, ablations)


def check_definition(model: VideoModel, ablations: list) -> None:
    x = example(model)
    gen = model.generate(x, ablate=ablations, max_new_tokens=5)
    full = model.force(x, gen.meta["generated"])
    run = model.run(full, ablate=ablations)
    np.testing.assert_array_equal(run.kept[:, : len(x.layout)], gen.kept[:, : len(x.layout)])
    expected = definition(model, full, ablations, run.kept.values)[full.layout.readout]
    np.testing.assert_allclose(gen.logits, expected, rtol=0, atol=DEFINITION)  # with a cache
    np.testing.assert_allclose(run.logits, expected, rtol=0, atol=DEFINITION)  # all at once
    whole = model.run(full, ablate=ablations, logits="all").logits
    left = run.kept.values[-1]
    everything = definition(model, full, ablations, run.kept.values)
    np.testing.assert_allclose(whole[left], everything[left], rtol=0, atol=DEFINITION)
    assert np.isnan(whole[~left]).all()
