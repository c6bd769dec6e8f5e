"""Every family: what is read is what transformers computes, what is changed is what was asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import Knockout, NoRope, Patch, Random, Reduce, fastv, layer, parse
from probe.ablate.base import PLACES as EVERYWHERE
from probe.ablate.base import Ablation
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
from probe.cost import predict
from probe.engine import forward
from probe.engine.sweep import runs
from probe.models.video_model import VideoModel
from tests import tiny
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
# One of each place and kind; "Patch" stands for activations of another clip.
EACH = [
    'Frames("reverse")',
    "Encoder(skip=[0])",
    "Reduce(at=vision_out(), segment=PerFrame(), score=Norm(), keep=0.5)",
    "Reduce(at=tokens(), score=Random(1), keep=0.4, rest=Merge())",
    "Reduce(at=mid(1), score=LastQuery(), keep=0.5, rest=Merge())",
    "Reduce(at=layer(2), score=Norm(), keep=0.3, rest=Bypass())",
    'Mask("window", queries="text", layers="1-2")',
    'Mask("blackout", layers="1-2", frozen=True)',
    'NoRope("video -> text", blend=0.5)',
    "Rope(time=1.0)",
    'Scale("head", layers=[1], heads=[0, 2], at="video", factor=0.5)',
    'Ablate("mlp", layers=[1], at="video", with_="mean")',
    "Patch",
    "Cache(score=Norm(), keep=0.5)",
    'Cache(layers="2-", score=LastQuery(), keep=0.3, when="step", how="hide")',
    'Contrast("blank", 0.5, 0.01)',
]
TOGETHER = [EACH[n] for n in (0, 1, 3, 4, 6, 9, 10, 12, 13, 15)]
# Families whose tower has a token for each visual token, so that it can be reduced itself.
TOWERS = {"instructblipvideo", "internvl", "llava_next_video", "video_llava"}


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
        there = np.isfinite(expected)  # a contrast removes tokens: -inf
        np.testing.assert_array_equal(found[~there], expected[~there])
        found, expected = found[there], expected[there]
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


def made(model: VideoModel, text: str) -> list[Ablation]:
    """Ablations from text, or the patch."""
    if text != "Patch":
        return parse(text)
    shown = tiny.clip(model.family.frames or 5, 40, 60, seed=9)
    other = model.encode(shown, "What moves?", frames=None)
    run = model.run(other, [Activations("residual", "all")])
    return [Patch(run, at="video", layers=[2])]


def test_places_together(model: VideoModel, close) -> None:
    """Frames, tower, tokens, rotation, masks, heads, another run, cache and logits in one list."""
    several = [one for text in TOGETHER for one in made(model, text)]
    assert {one.acts for one in several} == set(EVERYWHERE)
    check_decoding(model, several, close)


@pytest.mark.full
@pytest.mark.parametrize("text", EACH)
def test_each_place(name: str, model: VideoModel, text: str, close) -> None:
    x, one = models.example(model), made(model, text)
    if "vision_out" in text and name not in TOWERS:
        with pytest.raises(ProbeError) as refused:
            model.run(x, ablate=one)
        assert "\n" not in str(refused.value)
        return
    check_decoding(model, one, close)
    generated = model.generate(x, ablate=one, max_new_tokens=3)
    assert np.abs(generated.logits - model.generate(x, max_new_tokens=3).logits).max() > 1e-4
    try:
        stated = predict(model, x, one)
    except ProbeError:  # known with the clip or the layout only
        assert "vision_out" in text or "frozen" in text
    else:
        assert generated.cost.length == stated.lengths.rows
        assert generated.cost.macs == stated.macs()
        assert generated.cost.kv_length == tuple(n + 2 for n in stated.lengths.kv)
    run = model.run(x, ablate=one)
    for _, found, _ in runs(model, x, [one]):
        close(found.logits, run.logits)


def check_decoding(model: VideoModel, one, close) -> None:
    """Generation is the run over its own answer, and leaves the model as it was."""
    x = models.example(model)
    model.run(x)
    before = snapshot(model.hf)
    one = list(one) if isinstance(one, list) else [one]
    generated = model.generate(x, ablate=one, max_new_tokens=4)
    same(before, snapshot(model.hf))
    full = model.force(x, generated.meta["generated"])
    run = model.run(full, ablate=one)
    count = generated.kept.sizes["position"] - 4
    np.testing.assert_array_equal(run.kept.values[:, :count], generated.kept.values[:, :count])
    close(generated.logits, run.logits)
