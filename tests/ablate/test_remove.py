"""Ablate against plain transformers: zeroed weights, a layer taken out, hooks of the tests' own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate.remove import Ablate
from probe.ablate.scale import Scale
from probe.capture import Activations
from probe.engine import forward
from probe.engine.session import Session
from probe.interop import save_activations
from probe.models.video_model import VideoModel
from probe.spec import from_json
from tests.ablate import plain
from tests.ablate.plain import NAMES, named, show
from tests.decoder import decode
from tests.tiny import clip, example

EVERY = [Activations("head", "all"), Activations("attention", "all"), Activations("mlp", "all")]


def zeroed(model: VideoModel, layer: int, head: int | None = None) -> VideoModel:
    """The attention's output projection (or a head's columns of it) is zero."""

    def edit(other: VideoModel) -> None:
        projection = other.output(layer)
        projection.weight[:, slice(None) if head is None else plain.columns(other, head)] = 0

    return plain.edited(model, edit)


def without(model: VideoModel, layer: int) -> VideoModel:
    """A copy whose list of layers lacks one."""

    def edit(other: VideoModel) -> None:
        del other.decoder.layers[layer]

    return plain.edited(model, edit)


def no_mlp(model: VideoModel, layer: int) -> VideoModel:
    def edit(other: VideoModel) -> None:
        other.mlp_output(layer).weight.zero_()

    return plain.edited(model, edit)


@pytest.mark.parametrize("name", NAMES)
def test_zero_is_the_model_without_the_part(request: pytest.FixtureRequest, name: str) -> None:
    model = named(request, name)
    x, y = show(model, answer="red"), show(model)
    cases = [
        (Ablate("head", layers=1, heads=2), zeroed(model, 1, 2)),
        (Ablate("attention", layers=2), zeroed(model, 2)),
        (Ablate("mlp", layers=0), no_mlp(model, 0)),
        (Ablate("layer", layers=1), without(model, 1)),
    ]
    for one, other in cases:
        run = model.run(x, ablate=[one]).logits
        np.testing.assert_allclose(run, plain.logits(other, x), rtol=0, atol=2e-5, err_msg=str(one))
        assert np.abs(run - model.run(x).logits).max() > 1e-3
        if one.part != "layer":  # plain generation needs a cache with every layer's number
            gen = model.generate(y, ablate=[one], max_new_tokens=4).logits
            np.testing.assert_allclose(gen, plain.generated(other, y), rtol=0, atol=2e-5)


def test_zero_is_the_float64_decoder_without_the_part(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    for one, other in [
        (Ablate("head", layers=1, heads=2), zeroed(tiny, 1, 2)),
        (Ablate("mlp", layers=0), no_mlp(tiny, 0)),
    ]:
        expected = decode(other, x)[x.layout.readout]
        np.testing.assert_allclose(tiny.run(x, ablate=[one]).logits, expected, rtol=0, atol=1e-5)


def test_zero_is_a_factor_of_zero(tiny: VideoModel) -> None:
    x = example(tiny)
    for part in ("head", "attention", "mlp", "layer"):
        one, other = Ablate(part, [1, 2], at="video"), Scale(part, [1, 2], at="video", factor=0)
        np.testing.assert_array_equal(
            tiny.run(x, ablate=[one]).logits, tiny.run(x, ablate=[other]).logits
        )


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_is_over_tokens_of_the_same_role(
    request: pytest.FixtureRequest, name: str
) -> None:
    model = named(request, name)
    x = show(model)
    role, mine = x.layout.role, x.layout.select("frame 1 + question")

    def averaged(y: torch.Tensor, rows: np.ndarray, channels: slice = slice(None)) -> torch.Tensor:
        old = y.clone()
        for row in mine:
            same = torch.as_tensor(np.flatnonzero(role == role[row]))
            y[row, channels] = old[same][:, channels].mean(0)
        return y

    with plain.changed(plain.part(model, 1, "mlp"), averaged):
        expected = plain.logits(model, x)
    one = Ablate("mlp", 1, at="frame 1 + question", with_="mean")
    np.testing.assert_allclose(model.run(x, ablate=[one]).logits, expected, rtol=0, atol=1e-5)
    channels = plain.columns(model, 3)
    with plain.given(model.output(2), lambda y, rows: averaged(y, rows, channels)):
        expected = plain.logits(model, x)
    one = Ablate("head", 2, 3, at="frame 1 + question", with_="mean")
    np.testing.assert_allclose(model.run(x, ablate=[one]).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("part", ["head", "attention", "mlp", "layer"])
def test_tokens_after_the_prompt_take_the_mean_of_its_text(tiny: VideoModel, part: str) -> None:
    x = example(tiny)
    gen = tiny.generate(x, ablate=[Ablate(part, 2, at="text", with_="mean")], max_new_tokens=5)
    full = tiny.force(x, gen.meta["generated"])
    run = tiny.run(full, ablate=[Ablate(part, 2, at="text + answer", with_="mean")])
    np.testing.assert_allclose(gen.logits, run.logits, rtol=0, atol=1e-5)
    if part != "mlp":
        return
    text = x.layout.select("text")

    def averaged(y: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        y[len(x.layout) :] = y[text].mean(0)
        return y

    with plain.changed(tiny.layers[2].mlp, averaged):
        expected = plain.logits(tiny, full)
    run = tiny.run(full, ablate=[Ablate("mlp", 2, at="answer", with_="mean")])
    np.testing.assert_allclose(run.logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_resample_and_reference_means_are_those_of_the_other_run(
    request: pytest.FixtureRequest, name: str, tmp_path: Path
) -> None:
    model = named(request, name)
    x, y = show(model, answer="red"), show(model, seed=7, answer="red")
    other = model.run(y, EVERY)
    file = str(save_activations(other, tmp_path / "other.safetensors"))
    mine, role = x.layout.select("frame 1 + question"), y.layout.role
    theirs = {p: plain.record(model, y, plain.part(model, 1, p)) for p in ("attention", "mlp")}
    heads = plain.record(model, y, model.output(1), inputs=True)
    means = theirs["mlp"].clone()
    for row in mine:
        means[row] = theirs["mlp"][torch.as_tensor(role == role[row])].mean(0)

    def put(new: torch.Tensor, channels: slice = slice(None)):
        def change(y: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
            y[mine, channels] = new[mine, channels]
            return y

        return change

    at, both = "frame 1 + question", {}
    with plain.changed(plain.part(model, 1, "mlp"), put(theirs["mlp"])):
        both["mlp", "resample"] = plain.logits(model, x)
        with plain.changed(plain.part(model, 1, "attention"), put(theirs["attention"])):
            both["layer", "resample"] = plain.logits(model, x)
    with plain.given(model.output(1), put(heads, plain.columns(model, 2))):
        both["head", "resample"] = plain.logits(model, x)
    with plain.changed(plain.part(model, 1, "mlp"), put(means)):
        both["mlp", "mean"] = plain.logits(model, x)
    for (part, with_), expected in both.items():
        which = 2 if part == "head" else "all"
        for run in (other, file):
            one = Ablate(part, 1, which, at, with_, run)
            found = model.run(x, ablate=[one]).logits
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5, err_msg=str(one))


def test_neutral_text_only_and_the_full_path(pair: tuple[VideoModel, VideoModel]) -> None:
    model = pair[0]
    x, text = example(model, answer="red"), example(model, None, answer="red")
    run = model.run(x, EVERY)
    for with_ in ("zero", "mean", "resample"):
        other = run if with_ == "resample" else None
        nothing = Ablate("mlp", at=[], with_=with_, run=other)
        assert np.array_equal(model.run(x, ablate=[nothing]).logits, run.logits)
        video = Ablate("mlp", at="video", with_=with_, run=other)
        assert np.array_equal(model.run(text, ablate=[video]).logits, model.run(text).logits)
        active = Ablate("head", 1, [0, 1], "video", with_, other)
        forced = forward.run(model, x, ablations=[active], force=True).logits
        if with_ != "resample":
            found = model.run(x, ablate=[active]).logits
            np.testing.assert_allclose(forced, found, rtol=0, atol=1e-5)
        else:  # its own output in its own place is the untouched run
            np.testing.assert_allclose(forced, run.logits, rtol=0, atol=1e-5)


def test_what_it_changes_is_where_it_says(tiny: VideoModel) -> None:
    x = example(tiny)
    frame = x.layout.select("frame 3")[0]
    first = {"zero": frame, "mean": x.layout.select("video")[0]}  # the mean has all frames in it
    for with_, row in first.items():
        session = Session(tiny, x, (), [Ablate("mlp", [2, 3], at="frame 3", with_=with_)])
        (one, state) = session.ablations[0]
        assert one.affects(session, state) == (2, row)


def test_what_did_not_fire_and_what_is_refused(tiny: VideoModel) -> None:
    x = example(tiny)
    run = tiny.run(x, EVERY)
    own = Ablate("mlp", 1, with_="resample", run=run)
    with pytest.raises(ProbeError, match="changed no number of what the mlps put out"):
        tiny.run(x, ablate=[own])
    few = tiny.run(example(tiny, clip(3)), [Activations("mlp", "all")])
    for one, message in [
        (Ablate("mlp", with_="noise"), 'with_="noise"; there are zero, mean, resample'),
        (Ablate("mlp", with_="resample"), 'with_="resample" needs run='),
        (Ablate("mlp", run=run), 'with_="zero" takes no run='),
        (Ablate("mlp", with_="resample", run=few), "42 tokens of the other run for 50 here"),
        (Ablate("head", with_="mean", run=few), 'has no activations of site "head"'),
        (Ablate("mlp", with_="resample", run="none.safetensors"), "none.safetensors: not a file"),
        (Ablate("mlp", with_="resample", run=3), "run=3; give a run with Activations"),
    ]:
        with pytest.raises(ProbeError, match=message) as error:
            tiny.run(x, ablate=[one])
        assert "\n" not in str(error.value)


def test_as_json_and_a_run_that_is_gone(tiny: VideoModel) -> None:
    run = tiny.run(example(tiny), EVERY)
    same = tiny.run(example(tiny), EVERY)
    one = Ablate("mlp", 1, with_="resample", run=run)
    assert one == Ablate("mlp", 1, with_="resample", run=same) and len({one, one}) == 1
    assert one != Ablate("mlp", 1, with_="resample", run=tiny.run(example(tiny, clip(5, seed=7))))
    names = {"Ablate": Ablate}
    file = Ablate("head", 1, [0, 2], with_="resample", run="other.safetensors")
    assert from_json(json.loads(json.dumps(file.to_json())), names) == file
    again = from_json(json.loads(json.dumps(one.to_json())), names)
    with pytest.raises(ProbeError, match="was a run in memory, which is gone; save such a run"):
        tiny.run(example(tiny), ablate=[again])
