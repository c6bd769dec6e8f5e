"""Scale against plain transformers with edited weights, and against the float64 decoder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate.scale import Scale
from probe.engine import forward
from probe.models.encode import Example
from probe.models.video_model import VideoModel
from probe.spec import from_json, parse
from tests.ablate.plain import (
    FAMILIES,
    Absent,
    changed,
    columns,
    edited,
    generated,
    given,
    named,
    show,
)
from tests.ablate.plain import logits as plain_logits
from tests.decoder import decode
from tests.snapshot import same, snapshot
from tests.tiny import example

CASES = [
    Scale("head", factor=0.0, layers=1, heads=2),
    Scale("head", factor=-1.5, layers=[0, 2], heads=[0, 3]),
    Scale("attention", factor=0.5, layers=2),
    Scale("mlp", factor=2.0, layers="0-1"),
    Scale("layer", factor=0.0, layers=1),
    Scale("layer", factor=0.3, layers=[0, 2]),
]


def weights(one: Scale, model: VideoModel) -> VideoModel:
    """The same by other weights of the output projections."""

    def edit(other: VideoModel) -> None:
        layers = [one.layers] if isinstance(one.layers, int) else one.layers
        heads = [one.heads] if isinstance(one.heads, int) else one.heads
        for layer in (0, 1) if layers == "0-1" else layers:
            attention, mlp = other.output(layer), other.mlp_output(layer)
            if one.part == "head":
                for head in heads:
                    attention.weight[:, columns(other, head)] *= one.factor
            touched = {"attention": [attention], "mlp": [mlp], "layer": [attention, mlp]}
            for projection in touched.get(one.part, []):
                projection.weight *= one.factor
                if projection.bias is not None:
                    projection.bias *= one.factor

    return edited(model, edit)


@pytest.mark.parametrize("name", ["tiny", "other", "tiny_eager", "qwen3_vl", *FAMILIES])
def test_it_is_the_model_with_other_weights(request: pytest.FixtureRequest, name: str) -> None:
    model = named(request, name)
    x, y = show(model, answer="red"), show(model)
    full = model.run(x).logits
    for one in CASES if name in ("tiny", "other") else CASES[1::2]:
        other, before = weights(one, model), snapshot(model.hf)
        run = model.run(x, ablate=[one])
        same(before, snapshot(model.hf))
        np.testing.assert_allclose(run.logits, plain_logits(other, x), rtol=0, atol=2e-5)
        assert np.abs(run.logits - full).max() > 1e-3, f"{one} changes nothing"
        gen = model.generate(y, ablate=[one], max_new_tokens=4)
        np.testing.assert_allclose(gen.logits, generated(other, y), rtol=0, atol=2e-5)


def test_it_is_the_float64_decoder_with_other_weights(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    for one in CASES:
        expected = decode(weights(one, tiny), x)[x.layout.readout]
        np.testing.assert_allclose(
            tiny.run(x, ablate=[one]).logits, expected, rtol=0, atol=1e-5, err_msg=str(one)
        )


@pytest.mark.parametrize("name", ["tiny", *FAMILIES])
def test_only_where_it_is_asked_for(request: pytest.FixtureRequest, name: str) -> None:
    model = named(request, name)
    x, y = show(model, answer="red"), show(model)
    at = "frame 1 + question"
    mine = x.layout.select(at)

    def scaled(part: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        part[torch.as_tensor(np.isin(rows, mine))] *= -0.5
        return part

    def head(part: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        part[torch.as_tensor(np.isin(rows, mine)), columns(model, 1)] *= -0.5
        return part

    module = model.layers[1].get_submodule(model.family.added[1])
    with changed(module, scaled):
        expected = plain_logits(model, x)
    run = model.run(x, ablate=[Scale("mlp", layers=1, factor=-0.5, at=at)])
    np.testing.assert_allclose(run.logits, expected, rtol=0, atol=1e-5)
    one = Scale("head", layers=1, heads=[1], factor=-0.5, at=at)
    with given(model.output(1), head):
        expected = plain_logits(model, x)
    np.testing.assert_allclose(model.run(x, ablate=[one]).logits, expected, rtol=0, atol=1e-5)
    with given(model.output(1), head):
        expected = generated(model, y)
    gen = model.generate(y, ablate=[one], max_new_tokens=4)
    np.testing.assert_allclose(gen.logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("part", ["head", "attention", "mlp", "layer"])
def test_decoding_is_computing_all_at_once(tiny: VideoModel, part: str) -> None:
    x = example(tiny)
    gen = tiny.generate(x, ablate=[Scale(part, factor=0.5, at="text")], max_new_tokens=5)
    full = tiny.force(x, gen.meta["generated"])
    run = tiny.run(full, ablate=[Scale(part, factor=0.5, at="text + answer")])
    np.testing.assert_allclose(gen.logits, run.logits, rtol=0, atol=1e-5)
    prompt = tiny.generate(x, ablate=[Scale(part, factor=0.5, at="question")], max_new_tokens=5)
    assert np.abs(prompt.logits[1:] - gen.logits[1:]).max() > 1e-3  # generated tokens count


def test_neutral_and_text_only(pair: tuple[VideoModel, VideoModel]) -> None:
    model = pair[0]
    x, y = example(model, answer="red"), example(model)
    run, gen = model.run(x).logits, model.generate(y, max_new_tokens=4).logits
    for part in ("head", "attention", "mlp", "layer"):
        for one in (Scale(part, factor=1), Scale(part, factor=0, at=[])):
            assert np.array_equal(model.run(x, ablate=[one]).logits, run)
            again = model.generate(y, ablate=[one], max_new_tokens=4).logits
            assert np.array_equal(again, gen)
        forced = forward.run(model, x, ablations=[Scale(part, factor=1)], force=True)
        np.testing.assert_allclose(forced.logits, run, rtol=0, atol=1e-5)
        text = example(model, None, answer="red")
        video = model.run(text, ablate=[Scale(part, factor=0, at="video")]).logits
        assert np.array_equal(video, model.run(text).logits)


def test_two_halves_are_a_quarter_and_parts_compose(tiny: VideoModel) -> None:
    x = example(tiny)
    twice = tiny.run(x, ablate=[Scale("mlp", factor=0.5)] * 2).logits
    once = tiny.run(x, ablate=[Scale("mlp", factor=0.25)]).logits
    np.testing.assert_allclose(twice, once, rtol=0, atol=1e-6)
    both = tiny.run(x, ablate=[Scale("attention", factor=0.5), Scale("mlp", factor=0.5)]).logits
    layer = tiny.run(x, ablate=[Scale("layer", factor=0.5)]).logits
    np.testing.assert_allclose(both, layer, rtol=0, atol=1e-6)
    heads = tiny.run(x, ablate=[Scale("head", factor=0.5)]).logits  # no bias behind the heads
    attention = tiny.run(x, ablate=[Scale("attention", factor=0.5)]).logits
    np.testing.assert_allclose(heads, attention, rtol=0, atol=1e-5)


def test_what_it_changes_is_where_it_says(tiny: VideoModel) -> None:
    from probe.capture import Activations
    from probe.engine.session import Session

    x: Example = example(tiny)
    one = Scale("mlp", layers=[2, 3], factor=0.5, at="frame 3")
    session = Session(tiny, x, (), [one])
    layer, row = one.affects(session, session.ablations[0][1])
    assert (layer, row) == (2, x.layout.select("frame 3")[0])
    watch = [Activations("mlp", "all")]
    before, after = tiny.run(x, watch), tiny.run(x, watch, [one])
    moved = (before.data.activations != after.data.activations).any("channel").values
    assert not moved[:layer].any() and not moved[:, :row].any() and moved[layer, row]


def test_what_did_not_fire_and_what_is_refused(tiny: VideoModel) -> None:
    x = example(tiny)
    late = Scale("mlp", layers=2, factor=0.0, at="video")
    with pytest.raises(ProbeError, match="did not fire") as error:
        tiny.run(x, ablate=[Absent(2), late])
    assert str(late) in str(error.value) and "\n" not in str(error.value)
    for one, message in [
        (Scale("neuron"), 'part "neuron"; there are head, attention, mlp, layer'),
        (Scale("mlp", heads=1), 'part "mlp" has no heads'),
        (Scale("head", heads=4), "head 4 does not exist; the model has heads 0 to 3"),
        (Scale("head", layers=9), "layer 9 does not exist"),
        (Scale("mlp", at="frame 9"), "frames 0 to 4"),
        (Scale("mlp", factor=float("nan")), "factor nan is not a finite number"),
    ]:
        with pytest.raises(ProbeError, match=message):
            tiny.run(x, ablate=[one])


def test_as_json_and_text() -> None:
    for one in CASES:
        assert from_json(json.loads(json.dumps(one.to_json())), {"Scale": Scale}) == one
        assert parse(str(one), {"Scale": Scale}) == [one]
    assert str(CASES[0]) == 'Scale(part="head", layers=1, heads=2, factor=0.0)'
