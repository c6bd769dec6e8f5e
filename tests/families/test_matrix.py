"""Every family: what is read is what transformers computes, what is changed is what was asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.ablate import Knockout, NoRope, Random, Reduce, fastv, layer
from probe.capture import (
    Activations,
    AttentionEntropy,
    AttentionMass,
    AttentionReceived,
    AttentionRows,
    Contributions,
    LogitLens,
    TokenNorms,
)
from probe.engine import forward
from probe.models.video_model import VideoModel
from tests.ablate.cases import ACTIVE
from tests.capture import maps
from tests.families import masks, models
from tests.snapshot import same, snapshot

TOLERANCE = 1e-5
EVERYTHING = [
    AttentionMass("tokens", "frames"),
    AttentionReceived(),
    AttentionEntropy("tokens"),
    AttentionRows("last"),
    TokenNorms(),
    LogitLens(),
    Activations("mlp"),
    Contributions(7, versus=9),
]
# One of each place; all of them with the full matrix.
PLACES = [fastv(2, 0.5), Reduce(at=layer(0), score=Random(1), keep=0.3), Knockout("video -> text")]


@pytest.fixture(params=models.NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(name: str) -> VideoModel:
    return models.build(name)


@pytest.fixture
def close(record_property):
    """Close on the scale of the values; random weights make logits larger in some families.

    The error is kept for the table of `make test-all`.
    """

    def check(found, expected, tolerance: float = TOLERANCE) -> None:
        found, expected = np.asarray(found), np.asarray(expected)
        size = max(1.0, float(np.abs(expected).max()))
        record_property("error", float(np.abs(found - expected).max()) / size)
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * size)

    return check


def test_captures_are_the_dense_map_and_change_nothing(name: str, model: VideoModel, close) -> None:
    x = models.example(model, answer="red")
    weights = masks.attentions(models.build(name, "eager"), x)
    model.run(x)  # transformers installs hooks of its own in the first forward
    before = snapshot(model.hf)
    run = model.run(x, EVERYTHING)
    same(before, snapshot(model.hf))
    assert np.array_equal(run.logits, model.run(x).logits)
    data, layout = run.data, x.layout
    close(data.attention_mass, maps.mass(weights, layout, "tokens", "frames"))
    close(data.attention_received, maps.received(weights, layout, "text"))
    close(data.attention_entropy, maps.entropy(weights, layout, "tokens"))
    close(data.attention_rows.values[:, :, 0], weights[:, :, layout.last])
    close(run.logits, masks.logits(model, x))


def test_contributions_sum_to_the_logit(model: VideoModel, close) -> None:
    x = models.example(model)
    run = model.run(x, [Contributions(7, versus=9, by_position=True), Contributions(7)])
    difference = float(run.logits[0, 7] - run.logits[0, 9])
    close(run.data.contributions.sum().values, np.array(difference), 1e-4)
    close(run.data.contributions_2.sum().values, np.array(float(run.logits[0, 7])), 1e-4)
    heads = run.data.contributions_attention.sum(["head", "source_group"])
    bias = [getattr(model.output(n), "bias", None) for n in range(model.n_layers)]
    if all(b is None for b in bias):
        attention = run.data.contributions.sel(part="attention")
        close(heads.values, attention.values, 1e-4)
        close(run.data.contributions_position.sum("position").values, attention.values, 1e-4)


def test_generation_is_transformers_own(name: str, model: VideoModel, close) -> None:
    x = models.example(model)
    model.run(x)
    before = snapshot(model.hf)
    run = model.generate(x, [AttentionRows(), AttentionMass()], max_new_tokens=4)
    same(before, snapshot(model.hf))
    inputs = {key: value for key, value in x.inputs.items() if key != "position_ids"}
    with torch.no_grad():
        plain = model.hf.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert run.meta["generated"] == plain[0, -4:].tolist()
    full = model.force(x, run.meta["generated"])
    weights = masks.attentions(models.build(name, "eager"), full)
    for step in range(4):
        row = x.layout.last + step
        found = run.data.attention_rows.isel(step=step).squeeze("query").values[..., : row + 1]
        np.testing.assert_allclose(found, weights[:, :, row, : row + 1], rtol=0, atol=TOLERANCE)
    close(run.logits, masks.logits(model, full))


@pytest.mark.parametrize("one", PLACES, ids=str)
def test_ablations_are_masks(model: VideoModel, one, close) -> None:
    x = models.example(model, answer="red")
    run = model.run(x, ablate=[one])
    hidden = np.zeros((model.n_layers, len(x.layout), len(x.layout)), bool)
    if isinstance(one, Knockout):
        for source, destination in x.layout.edges(one.edges):
            hidden[:, destination[:, None], source] = True
    else:
        hidden |= ~run.kept.values[:, None]
        hidden[:, range(len(x.layout)), range(len(x.layout))] = False
        assert run.kept.sum() < run.kept.size
    with masks.masked(model, hidden):
        expected = masks.logits(model, x)
    close(run.logits, expected)
    assert np.abs(run.logits - model.run(x).logits).max() > 1e-3


def test_no_rope_is_tables_of_angle_zero(model: VideoModel, close) -> None:
    x = models.example(model, answer="red")
    with masks.unrotated(model):
        expected = masks.logits(model, x)
    close(model.run(x, ablate=[NoRope("all -> all")]).logits, expected)
    assert np.abs(model.run(x).logits - expected).max() > 1e-3


@pytest.mark.parametrize("one", [fastv(2, 0.5), NoRope("video -> text")], ids=str)
def test_decoding_is_recomputing(model: VideoModel, one, close) -> None:
    check_decoding(model, one, close)


@pytest.mark.full
@pytest.mark.parametrize("one", ACTIVE, ids=str)
def test_every_ablation(model: VideoModel, one, close) -> None:
    if "newline" in str(one):
        one = Reduce(at=layer(1), score=Random(2), keep_tokens=3, of="video")
    check_decoding(model, one, close)
    x = models.example(model, answer="red")
    run = model.run(x, ablate=[one])
    close(forward.run(model, x, ablations=[one], force=True).logits, run.logits)
    assert np.abs(run.logits - model.run(x).logits).max() > 1e-4


def check_decoding(model: VideoModel, one, close) -> None:
    x = models.example(model)
    model.run(x)
    before = snapshot(model.hf)
    generated = model.generate(x, ablate=[one], max_new_tokens=4)
    same(before, snapshot(model.hf))
    full = model.force(x, generated.meta["generated"])
    run = model.run(full, ablate=[one])
    count = len(x.layout)
    np.testing.assert_array_equal(run.kept[:, :count], generated.kept[:, :count])
    close(generated.logits, run.logits)
