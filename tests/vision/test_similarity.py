"""CKA and cosine between layers, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.capture import vision_similarity
from probe.capture.vision_similarity import VisionSimilarity, linear_cka
from probe.errors import ProbeError
from tests.families import models
from tests.vision import reference


def brute(x: np.ndarray, y: np.ndarray) -> float:
    """HSIC with centring matrices, as Kornblith et al. (2019) define it."""
    n = len(x)
    centre = np.eye(n) - 1 / n
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    return np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))


@pytest.mark.parametrize("tile", [1 << 22, 700])
@pytest.mark.parametrize("name", ["llava_onevision", "internvl", "qwen2_5_vl"])
def test_similarity_is_its_definition(name: str, tile: int, monkeypatch) -> None:
    monkeypatch.setattr(vision_similarity, "TILE", tile)
    model = models.build(name)
    x = models.example(model)
    found = model.run(x, [VisionSimilarity()]).data.vision_similarity
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
    prefix = int(name in reference.CLS)
    patches = [s if s.dim() == 2 else s[:, prefix:].flatten(0, 1) for s in (*seen, *last)]
    features = [patch.double().numpy() for patch in patches]
    cka = [[brute(a, b) for b in features] for a in features]
    np.testing.assert_allclose(found.sel(measure="cka").values, cka, rtol=0, atol=1e-5)
    unit = [f / np.linalg.norm(f, axis=1, keepdims=True) for f in features]
    cosine = [[(a * b).sum(1).mean() for b in unit] for a in unit]
    np.testing.assert_allclose(found.sel(measure="cosine").values, cosine, rtol=0, atol=1e-5)
    assert found.attrs["patches"] == len(features[0])


def test_cka_ignores_rotation_and_scale_and_sees_noise() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 20) + 3
    rotation = torch.linalg.qr(torch.randn(20, 20))[0]
    found = linear_cka([x, 7 * x @ rotation, torch.randn(300, 20)])
    assert found[0, 1] == pytest.approx(1, abs=1e-5)
    assert found[0, 2] < 0.2


def test_fewer_patches_are_a_part_of_all() -> None:
    model = models.build("llava_onevision")
    x = models.example(model)
    most = model.run(x, [VisionSimilarity(patches=None)]).data.vision_similarity
    some = model.run(x, [VisionSimilarity(patches=40, layers=[0, 2])]).data.vision_similarity
    assert most.attrs["patches"] == 80 and some.attrs["patches"] == 40
    assert some.dims == ("measure", "vision_layer", "other_vision_layer")
    assert some.vision_layer.values.tolist() == [0, 2]
    assert not np.allclose(some.values, most.sel(vision_layer=[0, 2], other_vision_layer=[0, 2]))
    with pytest.raises(ProbeError, match="at least 2"):
        model.run(x, [VisionSimilarity(patches=1)])


def test_memory_is_said_before() -> None:
    model = models.build("llava_onevision")
    x = models.example(model)
    table = model.estimate(x, [VisionSimilarity(patches=None), VisionSimilarity(patches=40)])
    many, few = table.bytes[1], table.bytes[2]
    layers, width = 3, 24
    assert many - few >= 4 * layers * 40 * width and few >= 4 * layers * 40 * width
