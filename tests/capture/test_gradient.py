"""Gradients against finite differences of plain transformers in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.ablate import Knockout, Norm, Reduce, fastv, layer
from probe.capture import Activations, AttentionMass, Contributions
from probe.capture.gradient import AttributionPatching, GradientTimesInput
from probe.interop import save_activations
from probe.models.video_model import VideoModel
from probe.spec import from_json
from tests import tiny as tiny_models
from tests.families import models
from tests.snapshot import same, snapshot
from tests.tiny import clip, example

EPSILON = 1e-2  # the norms of transformers are float32, also in a float64 model
STENCIL = {1: 8, -1: -8, 2: -1, -2: 1}  # five points, error of order EPSILON^4
TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def exact() -> VideoModel:
    """The weights of `tiny` in float64, so that differences are derivatives."""
    model = tiny_models.build(seed=2)
    model.hf.double()
    return model


def difference(model: VideoModel, x: Any, place: Any, change: torch.Tensor) -> float:
    """Derivative of logit r - logit b along a change of what goes into, or comes out of, a place.

    `place` is (module, "in" or "out").
    """
    ids = [model.token_id(x, word, "test") for word in "rb"]
    module, end = place
    total = 0.0
    for steps, weight in STENCIL.items():
        step = steps * EPSILON * change
        if end == "in":
            handle = module.register_forward_pre_hook(
                lambda m, a, k, step=step: (
                    ((a[0] + step, *a[1:]), k)
                    if a
                    else (a, k | {"hidden_states": k["hidden_states"] + step})
                ),
                with_kwargs=True,
            )
        else:
            handle = module.register_forward_hook(
                lambda m, a, y, step=step: (
                    (y[0] + step, *y[1:]) if isinstance(y, tuple) else y + step
                )
            )
        with torch.no_grad():
            logits = model.hf(**x.inputs, use_cache=False).logits[0, x.layout.last]
        handle.remove()
        total += weight * float(logits[ids[0]] - logits[ids[1]])
    return total / (12 * EPSILON)


def test_gradient_times_input_is_a_derivative(exact: VideoModel) -> None:
    x = example(exact)
    seen: list[torch.Tensor] = []
    first = exact.layers[0]
    hook = first.register_forward_pre_hook(
        lambda m, a, k: seen.append(a[0] if a else k["hidden_states"]), with_kwargs=True
    )
    run = exact.run(x, [GradientTimesInput("r", versus="b"), Contributions("r", versus="b")])
    hook.remove()
    found = run.data.gradient_times_input
    assert found.dims == ("position",) and found.sizes["position"] == len(x.layout)
    for position in [0, *x.layout.select("frame 1 + last").tolist()]:
        change = torch.zeros_like(seen[0])
        change[:, position] = seen[0][:, position]
        expected = difference(exact, x, (first, "in"), change)
        assert float(found[position]) == pytest.approx(expected, abs=TOLERANCE)
    assert float(np.abs(found).max()) > 0.1


@pytest.mark.parametrize("name", ["qwen3_vl", "internvl"])
def test_other_families_too(name: str) -> None:
    """Three axes of positions and deepstack; frames as images: the whole sum is a derivative."""
    model = models.build(name)
    x = models.example(model)
    seen: list[torch.Tensor] = []
    first = model.layers[0]
    hook = first.register_forward_pre_hook(
        lambda m, a, k: seen.append(a[0] if a else k["hidden_states"]), with_kwargs=True
    )
    found = model.run(x, [GradientTimesInput("r", versus="b")]).data.gradient_times_input
    hook.remove()
    expected = difference(model, x, (first, "in"), seen[0])
    assert float(found.sum()) == pytest.approx(expected, abs=1e-3) and abs(expected) > 0.05


@pytest.mark.parametrize("site", ["residual", "attention", "mlp", "head"])
def test_attribution_patching_is_a_derivative(exact: VideoModel, site: str, tmp_path: Path) -> None:
    shown = clip()
    blank = shown.frames.copy()
    blank[2] = 0
    clean = example(exact, shown)
    other = example(exact, shown.__class__(**vars(shown) | {"frames": blank}))
    first = "attention" if site == "mlp" else "mlp"
    reads = [Activations(first, "last"), Activations(site, "all")]
    path = save_activations(exact.run(clean, reads), tmp_path / "clean.safetensors")
    positions = other.layout.select("frame 2 + last")
    capture = AttributionPatching(
        "r", versus="b", clean=str(path), site=site, positions="frame 2 + last", layers=[0, 2]
    )
    run = exact.run(other, [capture, Activations(site, positions, [0, 2])])
    here = run.data.activations
    there = exact.run(clean, [Activations(site, positions, [0, 2])]).data.activations
    found = run.data.attribution_patching
    assert found.dims[:2] == ("layer", "position")
    assert found.dims[2:] == (("head",) if site == "head" else ())
    assert float(np.abs(found).max()) > 1e-3
    for number in (0, 2):
        for place in positions.tolist():
            change = (there - here).sel(layer=number, position=place).values
            if site == "head":
                expected = [head_difference(exact, other, number, place, change, h) for h in (0, 3)]
                values = found.sel(layer=number, position=place, head=[0, 3])
                np.testing.assert_allclose(values, expected, atol=TOLERANCE)
                continue
            whole = torch.zeros(1, len(other.layout), exact.width, dtype=torch.float64)
            whole[0, place] = torch.from_numpy(change).double()
            block = exact.layers[number]
            module = {
                "residual": (block, "in"),
                "attention": (block.self_attn, "out"),
                "mlp": (block.mlp, "out"),
            }[site]
            expected = difference(exact, other, module, whole)
            value = float(found.sel(layer=number, position=place))
            assert value == pytest.approx(expected, abs=TOLERANCE)


def head_difference(
    model: VideoModel, x: Any, number: int, place: int, change: np.ndarray, head: int
) -> float:
    """Derivative along one head's change, through its columns of the output projection."""
    attention = model.layers[number].self_attn
    flat = torch.zeros(model.n_heads, model.head_dim, dtype=torch.float64)
    flat[head] = torch.from_numpy(change[head]).double()
    whole = torch.zeros(1, len(x.layout), model.width, dtype=torch.float64)
    whole[0, place] = flat.flatten() @ attention.o_proj.weight.detach().T
    return difference(model, x, (attention.o_proj, "out"), whole)


def test_in_a_linear_model_patching_is_exact(tiny: VideoModel, tmp_path: Path) -> None:
    """From the last layer's MLP on, only the final norm is not linear: close to a real patch."""
    x, y = example(tiny), example(tiny, clip(seed=7))
    last = tiny.n_layers - 1
    reads = [Activations("mlp", "last", last)]
    path = save_activations(tiny.run(x, reads), tmp_path / "clean.safetensors")
    capture = AttributionPatching(
        "r", clean=str(path), site="mlp", positions="last", layers=last, versus="b"
    )
    estimate = float(tiny.run(y, [capture]).data.attribution_patching.squeeze())
    clean = tiny.run(x, reads).data.activations.values[0, 0]

    def patch(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[0, -1] = torch.from_numpy(clean)
        return output

    ids = [tiny.token_id(x, word, "test") for word in "rb"]
    margins = []
    for hooks in ([], [patch]):
        handles = [tiny.layers[last].mlp.register_forward_hook(hook) for hook in hooks]
        with torch.no_grad():
            logits = tiny.hf(**y.inputs, use_cache=False).logits[0, -1]
        for handle in handles:
            handle.remove()
        margins.append(float(logits[ids[0]] - logits[ids[1]]))
    real = margins[1] - margins[0]
    assert np.sign(estimate) == np.sign(real) and 0.5 < estimate / real < 2


def test_with_gradients_everything_else_is_as_without(tiny: VideoModel) -> None:
    x = example(tiny, answer="red")
    reads = [AttentionMass("tokens"), Contributions("r"), Activations("head", "all")]
    cut = [Knockout("frame 1 -> text", layers=[1]), fastv(2, 0.5)]
    for ablations in ([], cut):
        plain = tiny.run(x, reads, ablations)
        before = snapshot(tiny.hf)
        run = tiny.run(x, [GradientTimesInput("r", step=2), *reads], ablations)
        same(before, snapshot(tiny.hf))
        np.testing.assert_allclose(run.logits, plain.logits, rtol=0, atol=1e-6)
        for name, array in plain.data.items():
            if array.dtype.kind == "f":
                np.testing.assert_allclose(run.data[name], array, rtol=0, atol=1e-5)
        assert torch.is_grad_enabled()
        assert all(parameter.grad is None for parameter in tiny.hf.parameters())


def test_gradients_through_ablations_and_of_frozen_weights(exact: VideoModel) -> None:
    x = example(exact)
    ablations = [Knockout("frame 1 -> text")]
    found = exact.run(x, [GradientTimesInput("r", versus="b")], ablations)
    exact.hf.requires_grad_(False)
    frozen = exact.run(x, [GradientTimesInput("r", versus="b")], ablations)
    exact.hf.requires_grad_(True)
    np.testing.assert_array_equal(frozen.data.gradient_times_input, found.data.gradient_times_input)
    rows = x.layout.select("frame 1")
    rest = exact.run(x, [GradientTimesInput("r", versus="b")]).data.gradient_times_input
    assert float(np.abs(found.data.gradient_times_input - rest)[rows].max()) > 1e-3
    gone = [Reduce(at=layer(0), score=Norm(), keep_tokens=2)]
    run = exact.run(x, [GradientTimesInput("r")], gone)
    dropped = ~run.kept.values[0]
    np.testing.assert_array_equal(np.isnan(run.data.gradient_times_input), dropped)


def test_steps_targets_and_all_logits(exact: VideoModel) -> None:
    x = example(exact, answer="red")
    one = exact.run(x, [GradientTimesInput("r", step=1)]).data.gradient_times_input
    every = exact.run(x, [GradientTimesInput("r", step=1)], logits="all").data
    np.testing.assert_allclose(every.gradient_times_input, one, atol=1e-6)
    both = exact.run(x, [GradientTimesInput("r", step=1), GradientTimesInput("b", step=1)]).data
    versus = exact.run(x, [GradientTimesInput("r", "b", 1)]).data.gradient_times_input
    found = both.gradient_times_input - both.gradient_times_input_2
    np.testing.assert_allclose(found, versus, atol=1e-5)


def test_what_is_refused(tiny: VideoModel, tmp_path: Path) -> None:
    x = example(tiny)
    with pytest.raises(ProbeError, match="reads one forward pass"):
        tiny.generate(x, [GradientTimesInput("r")], max_new_tokens=2)
    with pytest.raises(ProbeError, match="'red' is 3 tokens"):
        tiny.run(x, [GradientTimesInput("red")])
    with pytest.raises(ProbeError, match="step 1; this example has 1"):
        tiny.run(x, [GradientTimesInput("r", step=1)])
    with pytest.raises(ProbeError, match="name the clean run's file"):
        tiny.run(x, [AttributionPatching("r")])
    path = save_activations(tiny.run(x, [Activations()]), tmp_path / "clean.safetensors")
    with pytest.raises(ProbeError, match='no activations of site "mlp"'):
        tiny.run(x, [AttributionPatching("r", clean=str(path), site="mlp")])
    with pytest.raises(ProbeError, match="position 0 is not in this file"):
        tiny.run(x, [AttributionPatching("r", clean=str(path))])
    with pytest.raises(ProbeError, match="not a file of activations"):
        tiny.run(x, [AttributionPatching("r", clean=str(tmp_path / "missing"))])
    with pytest.raises(ProbeError, match='site "nowhere"'):
        tiny.run(x, [AttributionPatching("r", clean=str(path), site="nowhere")])


def test_as_json() -> None:
    names = {"GradientTimesInput": GradientTimesInput, "AttributionPatching": AttributionPatching}
    for made in (
        GradientTimesInput("red", versus="blue", step=1),
        AttributionPatching("red", clean="a.safetensors", site="mlp", layers=[1, 2]),
    ):
        assert from_json(json.loads(json.dumps(made.to_json())), names) == made
