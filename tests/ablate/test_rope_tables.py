"""Rotary tables of any positions are those that transformers would make."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.engine.rotary import has_axes, rotated, tables
from probe.models.loading import load
from probe.models.video_model import VideoModel
from tests import tiny as tiny_models
from tests.ablate.dense_edges import angles
from tests.families import models
from tests.snapshot import same, snapshot


def given(model: VideoModel, x) -> dict:
    """What transformers gives each layer."""
    seen: dict = {}
    undo = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs, n=n: seen.__setitem__(n, kwargs["position_embeddings"]),
            with_kwargs=True,
        )
        for n, layer in enumerate(model.layers)
    ]
    with torch.no_grad():
        model.hf(**x.inputs, use_cache=False)
    for handle in undo:
        handle.remove()
    return seen


@pytest.mark.parametrize("name", models.NAMES)
def test_tables_are_what_the_layers_of_every_family_get(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    layers = given(model, x)
    ids = model.position_ids(x, np.arange(len(x.layout)))
    before = snapshot(model.hf)
    for number, (cos, sin) in layers.items():
        found = tables(model, torch.zeros(1), ids, number)
        assert torch.equal(found[0], cos) and torch.equal(found[1], sin)
        half = tables(model, torch.zeros(1), ids / 2, number)
        # cos a = 2 cos^2(a / 2) - 1, where tables are not scaled.
        np.testing.assert_allclose(2 * half[0].square() - 1, cos, atol=1e-5)
    same(before, snapshot(model.hf))
    assert has_axes(model) == (ids.dim() == 3)
    if not has_axes(model):
        with pytest.raises(ProbeError, match="one axis, not three"):
            tables(model, torch.zeros(1), ids.expand(3, 1, -1), 0)


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "qwen3_vl"])
def test_tables_of_three_axes_by_hand(name: str) -> None:
    model = models.build(name)
    axes = 3 if has_axes(model) else 1
    ids = np.random.default_rng(0).uniform(-3, 30, (axes, 11))
    expected = angles(model, ids)
    for base in (1.0, 5.0):
        pairs = model.head_dim // 2
        ntk = base ** ((pairs - 1) / pairs)  # base^((d - 2) / d), d = 2 pairs
        shape = torch.tensor(ids, dtype=torch.float32)[:, None]
        cos, sin = tables(model, torch.zeros(1), shape if axes == 3 else shape[0], 0, ntk)
        expected = angles(model, ids, base)
        np.testing.assert_allclose(cos[0], torch.cat([expected, expected], -1).cos(), atol=2e-6)
        np.testing.assert_allclose(sin[0], torch.cat([expected, expected], -1).sin(), atol=2e-6)


@pytest.mark.parametrize("name", models.NAMES)
def test_two_rotations_are_one(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    ids = model.position_ids(x, np.arange(12)).float()
    time = torch.linspace(0, 3.3, 12).expand_as(ids)
    attention = model.layers[0].get_submodule(model.family.attention)
    v = torch.randn(2, 12, model.head_dim, generator=torch.Generator().manual_seed(0))
    once = rotated(model, 0, attention, v, ids + 0.7 * time)
    twice = rotated(model, 0, attention, v, ids)
    twice = rotated(model, 0, attention, twice, 0.7 * time)
    np.testing.assert_allclose(twice, once, rtol=0, atol=5e-6)
    assert (once - v).abs().max() > 0.1


def test_a_table_that_grows_with_the_sequence_stays_as_it_is() -> None:
    base = tiny_models.build()
    config = base.hf.config.__class__(**base.hf.config.to_dict())
    config.text_config.max_position_embeddings = 16
    config.text_config.rope_parameters = {
        "rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0,
    }  # fmt: skip
    hf = type(base.hf)._from_config(config, dtype=torch.float32).eval()
    model = load((hf, base.processor))
    x = tiny_models.example(model)
    layers = given(model, x)
    ids = model.position_ids(x, np.arange(len(x.layout)))
    plain = 10000.0 ** (-torch.arange(4) / 4)
    assert (hf.model.language_model.rotary_emb.inv_freq - plain).abs().max() > 1e-4  # it grew
    before = snapshot(hf)
    for some in (ids, ids[:, :3], ids * 10):
        cos, _ = tables(model, torch.zeros(1), some, 0)
        here = some[0] < len(x.layout)
        np.testing.assert_array_equal(cos[0, here], layers[0][0][0, some[0, here]])
    same(before, snapshot(hf))
