"""What vision captures read of attention, against dense maps, in every family."""

from __future__ import annotations

import numpy as np
import pytest

from probe.capture.vision_attention import CLS, RECEIVED, VisionAttention, outlier_patches
from probe.capture.vision_entropy import VisionEntropy
from probe.capture.vision_frame_mass import VisionFrameMass
from probe.engine import vision_call
from probe.errors import ProbeError
from tests.families import models
from tests.vision import reference

CAPTURES = [VisionAttention(), VisionEntropy(), VisionFrameMass()]


@pytest.fixture(params=models.NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_attention_is_the_dense_map(name: str, monkeypatch) -> None:
    monkeypatch.setitem(vision_call.TILE, "cpu", 60)
    model = models.build(name)
    x = models.example(model)
    data = model.run(x, [*CAPTURES, VisionAttention("received")]).data
    dense = reference.maps(name, models.build(name, "eager"), x)
    prefix = int(name in reference.CLS)
    received = dense[..., prefix:, prefix:]
    received = blocks_mean(received)
    expected = dense[..., 0, prefix:] if prefix else received
    label = CLS if prefix else RECEIVED
    assert data.vision_attention.coords["vision_query"].values[0] == label
    assert data.vision_attention.attrs["proxy"] == str(not prefix)
    close(data.vision_attention.sel(vision_query=label), expected)
    close(data.vision_attention_2.sel(vision_query=RECEIVED), received)
    entropy = -(dense * np.log(np.where(dense > 0, dense, 1))).sum(-1).mean(-1)
    close(data.vision_entropy, entropy)
    frames = dense.shape[2]
    assert data.vision_frame_mass.attrs["mixes"] == "False"
    close(
        data.vision_frame_mass, np.broadcast_to(np.eye(frames), (*dense.shape[:2], frames, frames))
    )


def blocks_mean(dense: np.ndarray) -> np.ndarray:
    """Mean over the queries that can see a key: all of its frame, or those of its window."""
    return dense.sum(-2) / (dense > 0).sum(-2)


def close(found, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-5)


def test_windows_are_seen_in_layers_that_have_them() -> None:
    model = models.build("qwen2_5_vl")
    x = models.example(model)
    dense = reference.whole(model, x)
    seen = (dense > 0).sum(-1)[:, 0]
    full = reference.tower(model).fullatt_block_indexes
    assert 0 < len(full) < len(dense), "the tiny model must have both kinds of layers"
    sizes = {layer: set(seen[layer].tolist()) for layer in range(len(dense))}
    for layer, several in sizes.items():
        assert (max(several) == 32) == (layer in full), (layer, several)


def test_cls_attention_sums_to_one_with_its_own() -> None:
    model = models.build("llava_next_video")
    x = models.example(model)
    data = model.run(x, [VisionAttention()]).data
    dense = reference.maps("llava_next_video", models.build("llava_next_video", "eager"), x)
    total = data.vision_attention.sum("patch").squeeze("vision_query").values
    np.testing.assert_allclose(total + dense[..., 0, 0], 1, rtol=0, atol=1e-5)


def test_layers_can_be_chosen() -> None:
    model = models.build("qwen2_5_vl")
    x = models.example(model)
    every = model.run(x, CAPTURES).data
    one = model.run(x, [VisionAttention(layers=1), VisionEntropy(1), VisionFrameMass([1])]).data
    assert one.sizes["vision_layer"] == 1
    for key in one:
        assert np.array_equal(one[key].values, every[key].sel(vision_layer=[1]).values), key


def test_generation_reads_the_prompt_once() -> None:
    model = models.build("internvl")
    x = models.example(model)
    once = model.run(x, CAPTURES).data
    run = model.generate(x, CAPTURES, max_new_tokens=3)
    for key in once:
        assert np.array_equal(run.data[key].values, once[key].values), key


def test_outliers_have_most_attention() -> None:
    model = models.build("video_llava")
    data = model.run(models.example(model), [VisionAttention()]).data
    found = outlier_patches(data.vision_attention, k=2, layer=-2)
    mean = data.vision_attention.values[-2, :, 0].mean(0)
    assert found.dims == ("frame", "patch")
    for frame, row in enumerate(found.values):
        assert set(np.flatnonzero(row)) == set(np.argsort(-mean[frame])[:2])
    with pytest.raises(ProbeError, match="k=99 of 9 patches"):
        outlier_patches(data.vision_attention, k=99)


def test_what_cannot_be_read_is_said(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    if name not in reference.CLS:
        with pytest.raises(ProbeError, match="has no CLS token"):
            model.run(x, [VisionAttention("cls")])
    with pytest.raises(ProbeError, match='query "class"'):
        model.run(x, [VisionAttention("class")])
    with pytest.raises(ProbeError, match="layer 99 does not exist"):
        model.run(x, [VisionAttention(layers=99)])
