"""Layers of the vision tower: chosen, averaged, left out; against transformers' own options."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from probe import ProbeError
from probe.ablate import Encoder
from probe.models.loading import load
from probe.models.video_model import VideoModel
from tests.families import models
from tests.tiny import example


def test_another_layer_is_the_option_of_the_config() -> None:
    model = models.build("video_llava")
    x = models.example(model)
    for layer, option in ((0, -3), (2, -1)):
        hf = copy.deepcopy(model.hf)
        hf.config.vision_feature_layer = option
        plain = load((hf, model.processor)).run(x)
        if layer == 2:  # later than the one in use: not known where features are taken
            with pytest.raises(ProbeError, match="uses the output of layer 1"):
                model.run(x, ablate=[Encoder(layers=2)])
            continue
        run = model.run(x, ablate=[Encoder(layers=layer)])
        np.testing.assert_allclose(run.logits, plain.logits, rtol=0, atol=1e-6)


def test_a_skipped_layer_is_a_shorter_tower(tiny: VideoModel) -> None:
    x = example(tiny)
    hf = copy.deepcopy(tiny.hf)
    layers = hf.model.vision_tower.encoder.layers
    hf.model.vision_tower.encoder.layers = nn.ModuleList([*layers[:1], *layers[2:]])
    hf.config.vision_config.num_hidden_layers -= 1
    plain = load((hf, tiny.processor)).run(x)
    run = tiny.run(x, ablate=[Encoder(skip=[1])])
    np.testing.assert_allclose(run.logits, plain.logits, rtol=0, atol=1e-6)
    gen = tiny.generate(x, ablate=[Encoder(skip=[1])], max_new_tokens=3)
    np.testing.assert_allclose(gen.logits[0], run.logits[0], rtol=0, atol=1e-5)


def test_a_mean_of_layers(tiny: VideoModel) -> None:
    x = example(tiny)
    tower, seen = tiny.vision.encoder.layers, []
    count = len(tower)
    handles = [
        layer.register_forward_hook(
            lambda m, a, out: seen.append(out if torch.is_tensor(out) else out[0])
        )
        for layer in tower
    ]
    with torch.no_grad():
        tiny.hf(**x.inputs)
    for handle in handles:
        handle.remove()
    mean = torch.stack([seen[0], seen[count - 1]]).mean(0)
    handle = tower[-1].register_forward_hook(
        lambda m, a, out: mean if torch.is_tensor(out) else (mean, *out[1:]), prepend=True
    )
    plain = tiny.run(x)
    handle.remove()
    run = tiny.run(x, ablate=[Encoder(layers=[0, -1])])
    np.testing.assert_allclose(run.logits, plain.logits, rtol=0, atol=1e-5)


def test_neutral_and_text_only(tiny: VideoModel) -> None:
    x, y = example(tiny), example(tiny, None)
    plain = tiny.run(x).logits
    assert np.array_equal(tiny.run(x, ablate=[Encoder()]).logits, plain)
    assert np.array_equal(tiny.run(x, ablate=[Encoder(layers=-1)]).logits, plain)
    assert np.array_equal(tiny.run(y, ablate=[Encoder(layers=0)]).logits, tiny.run(y).logits)
    with pytest.raises(ProbeError, match="does not exist"):
        tiny.run(x, ablate=[Encoder(layers=99)])
