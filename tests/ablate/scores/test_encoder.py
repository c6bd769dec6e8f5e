"""Scores from the vision tower, against dense maps made without probe's hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.siglip.modeling_siglip import SiglipMultiheadAttentionPoolingHead

from probe.ablate.encoder_places import fold
from probe.ablate.encoder_readings import Readings
from probe.ablate.scores import Norm
from probe.ablate.scores_encoder import CLS, EncoderReceived, Keys, PoolHead
from probe.engine.session import Session
from probe.errors import ProbeError
from tests import tiny
from tests.ablate.scores.host import Host, candidates, score
from tests.families import models
from tests.vision import reference

GRIDS = [name for name in models.NAMES if name != "instructblipvideo"]
WITH_CLS = [name for name in GRIDS if name in reference.CLS]


@pytest.mark.parametrize("name", GRIDS)
def test_received_is_the_dense_map_put_together_to_tokens(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    dense = reference.maps(name, models.build(name, "eager"), x)
    prefix = int(name in reference.CLS)
    inner = dense[..., prefix:, prefix:]
    expected = (inner.sum(-2) / (inner > 0).sum(-2)).mean(1)  # [layer, frame, patch]
    for layer in (-1, 0):
        found = score(model, x, EncoderReceived(layer))
        found = found[x.layout.row[x.layout.select("video")] >= 0]  # Video-LLaVA has CLS among them
        close(found, tokens_of(expected[layer], name, model, x))
        assert found.std() > 1e-5


@pytest.mark.parametrize("name", WITH_CLS)
def test_cls_is_the_dense_map_put_together_to_tokens(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    dense = reference.maps(name, models.build(name, "eager"), x)
    expected = dense[..., 0, 1:].mean(1)
    found = score(model, x, CLS())[x.layout.row[x.layout.select("video")] >= 0]
    close(found, tokens_of(expected[-2], name, model, x))


def test_cls_sums_to_one_with_its_own_share() -> None:
    model = models.build("video_llava")  # a token a patch, and one for CLS
    x = models.example(model)
    dense = reference.maps("video_llava", models.build("video_llava", "eager"), x)
    found = score(model, x, CLS(-1)).reshape(len(x.layout.groups), -1)
    np.testing.assert_allclose(found[:, 0], dense[-1, :, :, 0, 0].mean(0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[:, 1:].sum(1), 1 - found[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["llava_onevision", "llava_next_video", "qwen2_5_vl"])
def test_the_prompt_does_not_change_what_the_tower_reads(name: str) -> None:
    model = models.build(name)
    one, other = (
        model.encode(tiny.clip(5, 40, 60), question, frames=None)
        for question in ("What moves?", "Is the ball red or blue?")
    )
    np.testing.assert_array_equal(
        score(model, one, EncoderReceived()), score(model, other, EncoderReceived())
    )


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_vl", "llava_next_video"])
def test_keys_are_the_towers_keys(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    module: Any = reference.attention(reference.layers(model)[-1])
    with reference.watching([module], lambda args, kwargs, output: (args, kwargs)) as seen:
        reference.forward(model, x)
    ((args, kwargs),) = seen
    hidden = (args[0] if args else kwargs["hidden_states"]).double()
    if hidden.dim() == 3:
        heads = module.num_heads
        flat = hidden.flatten(0, 1)
        part = module.k_proj
        key = flat @ part.weight.double().T + part.bias.double()
        key = key.unflatten(0, hidden.shape[:2])[:, int(name in reference.CLS) :]
    else:
        _, key = reference.projections(module, hidden)
        key = reference.rotated(key, kwargs["position_embeddings"])[reference.raster(model, x)]
        heads = key.shape[1]
        key = key.reshape(len(x.layout.groups), -1, heads * key.shape[-1])
    key = key.detach().numpy()
    full = candidates(model, x, Keys()).readings
    close(full["encoder_key"], tokens_of(key, name, model, x), 1e-4)
    assert torch.equal(full["encoder_key"], full[Keys()])
    mean = candidates(model, x, Keys(heads="mean")).readings["encoder_key"]
    by_head = full["encoder_key"].unflatten(-1, (heads, -1)).mean(1)
    close(mean, by_head.numpy(), 1e-5)


def test_a_clip_and_an_image_each_have_their_own() -> None:
    model = models.build("qwen2_vl")
    clip, image = tiny.clip(4, 56, 84), tiny.picture(84, 56)
    both = model.encode([clip, image], "What moves?", frames=None)
    alone = model.encode(clip, "What moves?", frames=None)
    video = score(model, both, EncoderReceived())
    np.testing.assert_allclose(video, score(model, alone, EncoderReceived()), rtol=0, atol=1e-6)
    seen = score(model, both, EncoderReceived(), of="image")
    only = model.encode(image, "What moves?", frames=None)
    np.testing.assert_allclose(
        seen, score(model, only, EncoderReceived(), of="image"), rtol=0, atol=1e-6
    )


def test_a_newline_has_the_value_of_the_token_before_it() -> None:
    model = models.build("llava_onevision")
    x = models.example(model)
    found = score(model, x, EncoderReceived(), of="video + newline")
    assert x.layout.role[x.layout.select("video + newline")[-1]] == "newline"
    np.testing.assert_array_equal(found[:-1], score(model, x, EncoderReceived()))
    assert found[-1] == found[-2]


def test_a_planted_patch_is_ranked_first(monkeypatch) -> None:
    model = models.build("llava_next_video")
    x = models.example(model)
    layer = reference.layers(model)[-2]
    target = 1 + 2 * 6 + 4  # row 2 and column 4 of 6, in the token at row 1 and column 2 of 3

    def plant(module, args, kwargs, output):
        output[:, target] = 30 * query_of_cls
        return output

    with reference.watching(
        [layer.self_attn.q_proj], lambda args, kwargs, output: output[0, 0]
    ) as seen:
        reference.forward(model, x)
    query_of_cls = seen[0]
    handle = layer.self_attn.k_proj.register_forward_hook(plant, with_kwargs=True)
    found = score(model, x, CLS()).reshape(-1, 3, 3)
    handle.remove()
    best = found[0].argmax()
    assert (best // 3, best % 3) == (1, 2)


def test_the_pooling_head_is_torchs_own_attention() -> None:
    model = tiny.build(tiny.EVEN, seed=4)
    vision: Any = reference.tower(model)
    torch.manual_seed(0)
    vision.head = SiglipMultiheadAttentionPoolingHead(vision.config).eval()
    vision.use_head = True
    torch.nn.init.normal_(vision.head.attention.in_proj_weight, std=0.7)
    x = tiny.example(model)
    with reference.watching([vision.head], lambda args, kwargs, output: args[0]) as seen:
        reference.forward(model, x)
    probe = vision.head.probe.repeat(len(seen[0]), 1, 1)
    with torch.no_grad():
        weights = vision.head.attention(probe, seen[0], seen[0], need_weights=True)[1]
    close(score(model, x, PoolHead()), tokens_of(weights[:, 0].numpy(), "", model, x))
    vision.use_head = False  # it is there, but does not run
    with pytest.raises(ProbeError, match=r"PoolHead\(\): the vision tower of .* did not run"):
        score(model, x, PoolHead())


def test_what_a_tower_does_not_have_is_refused_by_name() -> None:
    without = models.build("llava_onevision")
    x = models.example(without)
    with pytest.raises(ProbeError, match=r"no CLS token; EncoderReceived\(\) can stand for it"):
        candidates(without, x, CLS())
    with pytest.raises(ProbeError, match=r"no pooling head .*EncoderReceived\(\)"):
        candidates(without, x, PoolHead())
    with pytest.raises(ProbeError, match="layer=9; the vision tower has layers 0 to 1"):
        candidates(without, x, EncoderReceived(9))
    with pytest.raises(ProbeError, match="keys of one layer"):
        candidates(without, x, Keys(-1), Keys(-2))
    queries = models.build("instructblipvideo")
    with pytest.raises(ProbeError, match="no place in a frame"):
        candidates(queries, models.example(queries), EncoderReceived())


def test_the_tower_is_read_only_where_a_score_asks() -> None:
    model = models.build("llava_onevision")
    x = models.example(model)
    assert Session(model, x, ablations=[Host((Norm(),))]).vision is None
    session = Session(model, x, ablations=[Host((EncoderReceived(),))])
    assert session.vision is not None and session.vision.wanted == {"received"}


def test_inside_the_tower_values_are_those_of_its_own_tokens() -> None:
    model = models.build("llava_next_video")
    x = models.example(model)
    dense = reference.maps("llava_next_video", models.build("llava_next_video", "eager"), x)
    ids = np.array([40, 3, 90])  # of 37 tokens a frame, CLS first
    host = InTower((EncoderReceived(0), Keys(0)), asked=(40, 3, 90))
    session = Session(model, x, ablations=[host])
    with session, torch.no_grad():
        model.hf(**x.inputs, use_cache=False)
    state = session.ablations[0][1]
    frame, token = ids // 37, ids % 37
    close(state["patches"][EncoderReceived(0)], dense[0, :, frame, 1:, token].mean((1, 2)))
    assert torch.equal(state["patches"]["encoder_key"], state["patches"][Keys(0)])
    assert state["early"] == "CLS(layer=1): it is known only after this place in the vision tower"


@dataclass(frozen=True)
class InTower(Host):
    """Asks for some tokens of the tower after its first layer."""

    asked: tuple[int, ...] = ()

    def vision_attention(self, session, state, call) -> None:
        super().vision_attention(session, state, call)
        if call.layer == 0:
            state["patches"] = state["readings"].patches(np.array(self.asked))
            with pytest.raises(ProbeError) as error:
                Readings(session, [CLS(1)]).patches(np.array(self.asked))
            state["early"] = str(error.value)


def test_each_of_two_clips_has_its_own() -> None:
    model = models.build("llava_onevision")
    clips = [tiny.clip(3, 56, 56, seed) for seed in (0, 1)]
    both = model.encode(clips, "What moves?", frames=None)
    found = score(model, both, EncoderReceived()).reshape(2, -1)
    for one, clip in zip(found, clips, strict=True):
        alone = model.encode(clip, "What moves?", frames=None)
        np.testing.assert_allclose(one, score(model, alone, EncoderReceived()), rtol=0, atol=1e-6)


def test_folding_is_a_mean_of_blocks_or_bilinear() -> None:
    grid = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    blocks = [[grid[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].mean() for c in (0, 1)] for r in range(3)]
    np.testing.assert_allclose(fold(grid, (3, 2)), blocks, rtol=1e-6)
    odd = np.random.default_rng(1).normal(size=(27, 27, 2)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(odd).permute(2, 0, 1)[None], size=(14, 14), mode="bilinear"
    )[0].permute(1, 2, 0)
    np.testing.assert_array_equal(fold(odd, (14, 14)), expected.numpy())
    assert fold(odd, (27, 27)).tolist() == odd.tolist()


def tokens_of(frames: np.ndarray, name: str, model, x) -> np.ndarray:
    """[frame, patch, ...] in raster order to [token, ...] in the order of the prompt."""
    grid = next((g for key, g in x.inputs.items() if key.startswith("video_grid_thw")), None)
    count = frames.shape[1]
    rows = round(count**0.5) if grid is None else int(grid[0, 1])
    there = x.layout.select("video")
    there = there[x.layout.row[there] >= 0]
    row, col, group = (part[there] for part in (x.layout.row, x.layout.col, x.layout.group))
    high, wide = x.layout.clips[0].cells
    whole = torch.from_numpy(frames.reshape(len(frames), rows, count // rows, -1)).double()
    whole = whole.permute(0, 3, 1, 2)
    if rows % high or count // rows % wide:
        small = torch.nn.functional.interpolate(whole, size=(high, wide), mode="bilinear")
    else:
        small = torch.nn.functional.adaptive_avg_pool2d(whole, (high, wide))
    found = small.permute(0, 2, 3, 1).numpy()[group, row, col]
    return found.reshape(len(there), *frames.shape[2:])


def close(found, expected, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=tolerance)
