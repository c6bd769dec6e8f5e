"""Norms of patches, their outliers and their tail, against hooks and planted distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.capture.vision_norms import VisionNorms
from probe.capture.vision_tail import norm_tail
from probe.errors import ProbeError
from tests.families import models
from tests.vision import reference


@pytest.fixture(params=models.NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_norms_are_those_of_the_layers(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    data = model.run(x, [VisionNorms()]).data
    layers = list(reference.layers(model))

    def given(args, kwargs, output):
        return args[0] if args else kwargs["hidden_states"]

    def given_back(args, kwargs, output):
        return output[0] if isinstance(output, tuple) else output

    with (
        reference.watching(layers, given) as seen,
        reference.watching(layers[-1:], given_back) as last,
    ):
        reference.forward(model, x)
    norms = torch.stack([*seen, *last]).double().norm(dim=-1)
    if name in reference.SEQUENCE:
        order = reference.raster(model, x)
        norms = norms.reshape(len(norms), -1)[:, order]
        expected = norms.reshape(len(norms), data.sizes["frame"], -1)
    else:
        expected = norms[..., int(name in reference.CLS) :]
    np.testing.assert_allclose(data.vision_norms.values, expected.numpy(), rtol=1e-5)
    median = np.median(data.vision_norms.values, axis=-1, keepdims=True)
    assert np.array_equal(data.vision_norms_outlier.values, data.vision_norms.values > 3 * median)


def test_projected_norms_are_those_of_the_projector(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    data = model.run(x, [VisionNorms()]).data
    assert model.family.projector is not None
    projector = model.hf.get_submodule(model.family.projector)

    def given_back(args, kwargs, output):
        return output if isinstance(output, torch.Tensor) else output[0]

    with reference.watching([projector], given_back) as seen:
        reference.forward(model, x)
    norms = torch.cat([y.flatten(0, -2) for y in seen]).double().norm(dim=-1).numpy()
    found = data.vision_norms_projected
    np.testing.assert_allclose(np.sort(found.values.ravel()), np.sort(norms), rtol=1e-5)
    np.testing.assert_allclose(data.vision_norms_projected_tail.values, norm_tail(norms), rtol=1e-4)


def test_an_outlier_is_found() -> None:
    model = models.build("llava_next_video")
    x = models.example(model)
    layer = reference.layers(model)[1]

    def grow(module, args, output):
        first, *rest = output if isinstance(output, tuple) else (output,)
        first = first.clone()
        first[2, 1 + 7] *= 50  # after CLS, patch 7 of frame 2
        return (first, *rest) if isinstance(output, tuple) else first

    handle = layer.register_forward_hook(grow)
    try:
        data = model.run(x, [VisionNorms()]).data
    finally:
        handle.remove()
    where = np.argwhere(data.vision_norms_outlier.sel(vision_layer=2).values == 1)
    assert where.tolist() == [[2, 7]]
    share = data.vision_norms_tail.sel(tail="top 1 % share").values
    assert share[2] > 5 * share[1]


def test_the_tail_of_known_distributions() -> None:
    random = np.random.default_rng(0)
    one = np.exp(random.normal(size=20_000) * 0.5)
    ratio, share, modes = norm_tail(one)
    assert modes == 1
    assert ratio == pytest.approx(np.exp(2.3263 * 0.5), rel=0.05)
    # Of a log-normal, the largest 1 % hold Phi(sigma - z) of the sum, with z the 99 % quantile.
    assert share == pytest.approx(0.0339, rel=0.05)
    heavy = one.copy()
    heavy[:300] = 50 * np.exp(random.normal(size=300) * 0.1)
    assert norm_tail(heavy)[2] == 2 and norm_tail(heavy)[0] > 3 * ratio
    three = np.concatenate([np.exp(random.normal(m, 0.3, 3000)) for m in (0, 3, 6)])
    assert norm_tail(three)[2] == 3
    assert norm_tail(np.full(100, 2.0)).tolist() == [1.0, 0.01, 1.0]
    assert norm_tail(np.append(one, np.nan)).tolist() == norm_tail(one).tolist()
    assert np.isnan(norm_tail(np.full(3, np.nan))).all()


def test_a_multiple_must_be_above_one() -> None:
    model = models.build("smolvlm")
    with pytest.raises(ProbeError, match="multiple above 1"):
        model.run(models.example(model), [VisionNorms(outlier=1)])
