"""Towers that are put together differently, prompts with several visuals, and clear errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from transformers.models.siglip.modeling_siglip import (
    SiglipAttention,
    SiglipMultiheadAttentionPoolingHead,
)

from probe.capture.vision_attention import VisionAttention
from probe.capture.vision_entropy import VisionEntropy
from probe.capture.vision_features import VisionFeatures
from probe.capture.vision_frame_mass import VisionFrameMass
from probe.capture.vision_norms import VisionNorms
from probe.errors import ProbeError
from probe.models.video_model import VideoModel
from tests import tiny
from tests.families import models, qwen2_5_vl
from tests.vision import reference


def own(seed: int = 4) -> VideoModel:
    """A tiny model that a test may change."""
    return tiny.build(tiny.EVEN, seed=seed)


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 255, (height, width, 3), dtype=np.uint8)


def test_a_pooling_head_is_read() -> None:
    model = own()
    vision = reference.tower(model)
    torch.manual_seed(0)
    vision.head = SiglipMultiheadAttentionPoolingHead(vision.config).eval()
    vision.use_head = True
    nn.init.normal_(vision.head.attention.in_proj_weight, std=0.7)
    nn.init.normal_(vision.head.attention.in_proj_bias, std=0.7)
    x = tiny.example(model)
    data = model.run(x, [VisionAttention()]).data
    with reference.watching([vision.head], lambda args, kwargs, output: args[0]) as seen:
        reference.forward(model, x)
    with torch.no_grad():
        probe = vision.head.probe.repeat(len(seen[0]), 1, 1)
        weights = vision.head.attention(
            probe, seen[0], seen[0], average_attn_weights=False, need_weights=True
        )[1]
    found = data.vision_attention_pooling
    assert found.attrs["proxy"] == "True" and "pooling head" in found.attrs["description"]
    np.testing.assert_allclose(found.values, weights[:, :, 0].transpose(0, 1), rtol=0, atol=1e-6)


class Bypass(SiglipAttention):
    """Attention that does not call transformers' attention function."""

    def forward(self, hidden_states, attention_mask=None, **kwargs):
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        parts = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (p(hidden_states).view(shape).transpose(1, 2) for p in parts)
        weights = (query @ key.mT * self.scale).softmax(-1)
        return self.out_proj((weights @ value).transpose(1, 2).flatten(2)), None


def test_attention_past_the_interface_is_named() -> None:
    model = own()
    layer = reference.layers(model)[1]
    bypass = Bypass(layer.self_attn.config).eval()
    bypass.load_state_dict(layer.self_attn.state_dict())
    layer.self_attn = bypass
    x = tiny.example(model)
    with pytest.raises(ProbeError, match=r"encoder\.layers\.1 never reached"):
        model.run(x, [VisionAttention()])
    assert np.isfinite(model.run(x, [VisionNorms()]).data.vision_norms.values).all()


def test_two_attentions_in_a_layer_are_refused() -> None:
    model = own()
    layer = reference.layers(model)[0]
    layer.temporal = SiglipAttention(layer.self_attn.config)
    with pytest.raises(ProbeError, match="several attention modules in one layer"):
        model.run(tiny.example(model), [VisionAttention()])


def test_a_family_that_names_no_tower_is_refused() -> None:
    model = own()
    x = tiny.example(model)
    model.family = replace(model.family, vision="model.eyes")
    with pytest.raises(ProbeError, match=r"no module 'model\.eyes'"):
        model.run(x, [VisionNorms()])
    model.family = replace(model.family, vision="model.multi_modal_projector")
    with pytest.raises(ProbeError, match="no list of layers"):
        model.run(x, [VisionNorms()])


def test_text_alone_is_refused(tiny_model: VideoModel) -> None:
    x = tiny.example(tiny_model, None)
    with pytest.raises(ProbeError, match="no clip and no image"):
        tiny_model.run(x, [VisionAttention()])


@pytest.fixture
def tiny_model(tiny: VideoModel) -> VideoModel:
    return tiny


CAPTURES = [VisionAttention(), VisionEntropy(), VisionNorms(), VisionFrameMass()]
BOTH = ["llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "video_llama_3", "internvl"]


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("image_first", [False, True])
def test_a_clip_and_an_image_are_each_as_alone(name: str, image_first: bool) -> None:
    model = models.build(name)
    clip, image = tiny.clip(4, 40, 60), picture()
    shown = [image, clip] if image_first else [clip, image]
    data = model.run(model.encode(shown, "What?", frames=None), CAPTURES).data
    alone = model.run(model.encode(clip, "What?", frames=None), CAPTURES).data
    pictures = [label for label in data.frame.values.tolist() if label not in alone.frame.values]
    assert set(data.frame.values) == {*alone.frame.values, *pictures}
    tiles = [f"image 0 tile {number}" for number in range(len(pictures))]
    assert pictures == (tiles if name == "llava_onevision" else ["image 0"])
    for key in ("vision_attention", "vision_entropy", "vision_norms"):
        found = data[key].sel(frame=alone.frame)
        if "patch" in found.dims:
            found = found.isel(patch=slice(alone.sizes["patch"]))
        np.testing.assert_allclose(found.values, alone[key].values, rtol=1e-4, atol=1e-5)
    mass = data.vision_frame_mass.sel(query_frame=alone.frame.values, key_frame=pictures)
    assert (mass.dropna("vision_layer").values == 0).all()


def test_a_tower_for_clips_alone_is_read_alone() -> None:
    model = models.build("video_llava")
    clip, image = tiny.clip(model.family.frames or 5), picture()
    captures = [*CAPTURES, VisionFeatures()]
    data = model.run(model.encode([image, clip], "What?", frames=None), captures).data
    alone = model.run(model.encode(clip, "What?", frames=None), captures).data
    assert data.frame.values.tolist() == alone.frame.values.tolist()
    for key in alone:
        np.testing.assert_allclose(data[key].values, alone[key].values, rtol=1e-4, atol=1e-5)
    with pytest.raises(ProbeError, match=r"'model\.video_tower' did not run"):
        model.run(model.encode(image, "What?"), [VisionNorms()])


def test_frames_of_different_size_have_their_own_cells() -> None:
    model = models.build("qwen2_5_vl")
    clip, image = tiny.clip(4, 32, 64), picture(48, 32)
    data = model.run(model.encode([clip, image], "What?", frames=None), CAPTURES).data
    assert data.patch_row.dims == ("frame", "patch")
    grids = {
        label: (
            int(data.patch_row.sel(frame=label).max()),
            int(data.patch_col.sel(frame=label).max()),
        )
        for label in data.frame.values.tolist()
    }
    assert grids == {"frames 0-1": (3, 7), "frames 2-3": (3, 7), "image 0": (5, 3)}
    there = data.patch_row >= 0
    assert np.isfinite(data.vision_norms.values[:, there.values]).all()
    assert np.isnan(data.vision_norms.values[:, ~there.values]).all()
    assert int((~there).sum()) == 32 - 24


def test_an_order_that_the_tower_does_not_tell_is_refused() -> None:
    model = models.build("qwen2_5_vl")
    x = models.example(model)

    def noise(module, args, kwargs):
        cos, sin = kwargs["position_embeddings"]
        return args, kwargs | {"position_embeddings": (cos + 0.5, sin)}

    handle = reference.layers(model)[0].register_forward_pre_hook(noise, with_kwargs=True)
    with pytest.raises(ProbeError, match="rotary tables that its rotary module did not make"):
        model.run(x, [VisionNorms()])
    handle.remove()
    model = qwen2_5_vl.build(seed=1)
    rotary = reference.tower(model).rotary_pos_emb
    renamed = type("Turns", (nn.Module,), {"forward": type(rotary).forward})()
    renamed.__dict__.update(rotary.__dict__)
    reference.tower(model).rotary_pos_emb = renamed
    renamed.recomposition_frequencies = rotary.recomposition_frequencies
    with pytest.raises(ProbeError, match="cannot be told apart"):
        model.run(x, [VisionNorms()])
