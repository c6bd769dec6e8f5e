"""Towers that attend over several frames: mass from frame to frame, against the dense map."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from probe.capture.vision_attention import VisionAttention
from probe.capture.vision_entropy import VisionEntropy
from probe.capture.vision_frame_mass import VisionFrameMass
from probe.engine import vision_call
from probe.models.video_model import VideoModel
from tests.families import models
from tests.vision import reference


@contextmanager
def one_block(model: VideoModel, layers: list[int]) -> Iterator[None]:
    """These layers attend over the whole clip, as in towers whose blocks span it."""

    def join(module, args, kwargs):
        ends = kwargs["cu_seqlens"]
        return args, kwargs | {"cu_seqlens": torch.stack([ends[0], ends[-1]])}

    found = reference.layers(model)
    handles = [found[n].register_forward_pre_hook(join, with_kwargs=True) for n in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "video_llama_3"])
@pytest.mark.parametrize("tile", [1 << 20, 500])
def test_frame_mass_is_the_dense_map(name: str, tile: int, monkeypatch) -> None:
    monkeypatch.setitem(vision_call.TILE, "cpu", tile)
    model = models.build(name)
    x = models.example(model)
    with one_block(model, [1]):
        data = model.run(x, [VisionFrameMass(), VisionEntropy(), VisionAttention()]).data
        dense = reference.whole(model, x)
    frames = data.sizes["query_frame"]
    heads, tokens = dense.shape[1], dense.shape[-1] // frames
    split = dense.reshape(len(dense), heads, frames, tokens, frames, tokens)
    mass = split.sum(-1).mean(3)
    assert mass[1, 0, 0, 1] > 0.01, "frames must attend to each other here"
    assert data.vision_frame_mass.attrs["mixes"] == "True"
    found = data.vision_frame_mass
    np.testing.assert_allclose(found.values, mass, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.sum("key_frame").values, 1, rtol=0, atol=1e-5)
    entropy = -(dense * np.log(np.where(dense > 0, dense, 1))).sum(-1)
    entropy = entropy.reshape(len(dense), heads, frames, tokens).mean(-1)
    np.testing.assert_allclose(data.vision_entropy.values, entropy, rtol=0, atol=1e-5)
    received = (dense.sum(2) / (dense > 0).sum(2)).reshape(len(dense), heads, frames, tokens)
    np.testing.assert_allclose(data.vision_attention.values[:, :, 0], received, rtol=0, atol=1e-5)
