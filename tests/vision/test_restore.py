"""The model after vision captures is the model before, and computes the same bit by bit."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch

from probe.capture import AttentionMass
from probe.capture.vision_attention import VisionAttention
from probe.capture.vision_entropy import VisionEntropy
from probe.capture.vision_features import VisionFeatures
from probe.capture.vision_frame_mass import VisionFrameMass
from probe.capture.vision_norms import VisionNorms
from probe.capture.vision_similarity import VisionSimilarity
from tests.families import models
from tests.snapshot import same, snapshot
from tests.vision import reference

EVERYTHING = [
    VisionAttention(),
    VisionEntropy(),
    VisionFrameMass(),
    VisionNorms(),
    VisionFeatures(),
    VisionSimilarity(),
    AttentionMass(),
]


CASES = [(name, "sdpa") for name in models.NAMES]


@pytest.mark.parametrize(
    ("name", "attention"), [*CASES, ("llava_onevision", "eager"), ("qwen2_5_vl", "eager")]
)
def test_captures_change_nothing(name: str, attention: str) -> None:
    model = models.build(name, attention)
    x = models.example(model, answer="red")
    plain = model.run(x).logits
    before = snapshot(model.hf)
    run = model.run(x, EVERYTHING)
    same(before, snapshot(model.hf))
    assert np.array_equal(run.logits, plain)
    assert all(np.isfinite(run.data[key].values).any() for key in run.data)


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "perception_lm"])
def test_a_forward_that_raises_leaves_nothing(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    plain = model.run(x).logits
    mlp = reference.layers(model)[1].mlp

    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    before = snapshot(model.hf)
    handle = mlp.register_forward_pre_hook(fail)  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match="planted"):
        model.run(x, EVERYTHING)
    handle.remove()
    same(before, snapshot(model.hf))
    assert torch.overrides._len_torch_function_stack() == 0
    assert np.array_equal(model.run(x, EVERYTHING).logits, plain)


def test_results_are_saved_and_opened(tmp_path) -> None:
    import probe

    model = models.build("qwen2_5_vl")
    run = model.run(models.example(model), EVERYTHING)
    run.save(tmp_path / "run")
    again = probe.open(tmp_path / "run").data
    for key in run.data:
        assert np.array_equal(again[key].values, run.data[key].values, equal_nan=True), key
    assert again.patch_row.values.tolist() == run.data.patch_row.values.tolist()


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "internvl"])
def test_half_precision_is_as_exact_as_the_model(name: str) -> None:
    model = models.build(name)
    full = model.run(models.example(model), EVERYTHING).data
    half = import_module(f"tests.families.{name}").build(seed=1)
    half.hf.to(torch.bfloat16)
    x = models.example(half)
    run = half.run(x, EVERYTHING)
    assert np.array_equal(run.logits, half.run(x).logits)
    assert run.data.vision_attention.attrs["dtype"] == "torch.bfloat16"
    assert np.array_equal(run.data.patch_row.values, full.patch_row.values)
    first = {"vision_layer": 0}
    for key, tolerance in (("vision_attention", 0.02), ("vision_entropy", 0.1)):
        found, expected = (data[key].isel(first).values for data in (run.data, full))
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
