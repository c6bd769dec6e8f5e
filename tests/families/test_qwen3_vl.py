"""Qwen3-VL: merged frames, true times as text, three axes of positions, deepstack."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from probe import ProbeError
from probe.ablate import fastv
from probe.capture import AttentionRows, Capture, Contributions
from probe.models.given import Picture
from probe.models.layout import Layout
from probe.models.video_model import VideoModel
from probe.video import Clip
from tests.families import qwen3_vl, qwen3_vl_moe
from tests.families.pixels import prove
from tests.tiny import clip

BUILDERS = {"dense": qwen3_vl.build, "moe": qwen3_vl_moe.build}
SHOWN = clip(5, 32, 48, seed=1)  # two rows of three tokens, without any resizing
UNEVEN = Clip(
    clip(7, 32, 48).frames,
    np.array([0.04, 0.1, 0.9, 1.7, 3.25, 3.3, 8.8]),
    np.array([1, 3, 27, 51, 80, 81, 200]),
    25.0,
    "uneven",
    9.0,
)


@pytest.fixture(scope="module", params=list(BUILDERS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(kind: str) -> VideoModel:
    return BUILDERS[kind](seed=3)


@pytest.mark.parametrize("count", [2, 5, 6])
def test_tokens_are_those_of_the_processor(model: VideoModel, count: int) -> None:
    x = model.encode(clip(count, 32, 48), "What moves?", frames=None)
    thw = x.inputs["video_grid_thw"]
    with torch.no_grad():
        features = model.hf.get_video_features(x.inputs["pixel_values_videos"], thw).pooler_output
    video = x.layout.select("video")
    assert len(video) == len(features[0]) == int(thw.prod()) // 4
    assert (x.inputs["input_ids"][0, video] == model.hf.config.video_token_id).all()
    assert x.layout.grid == (2, 3)
    pairs = [f"frames {first}-{first + 1}" for first in range(0, count - 1, 2)]
    assert x.layout.groups == (*pairs, *([f"frame {count - 1}"] if count % 2 else []))
    table = x.layout.to_frame().loc[video, ["group", "row", "col"]]
    cells = [(g, r, c) for g in range((count + 1) // 2) for r in range(2) for c in range(3)]
    assert list(map(tuple, table.to_numpy())) == cells


def written(layout: Layout) -> str:
    """The text of a clip's expansion, visual tokens left out."""
    return "".join(
        token
        for token, role in zip(layout.tokens, layout.role, strict=True)
        if role in ("timestamp", "separator")
    )


def test_the_text_states_the_times_of_the_layout(model: VideoModel) -> None:
    layout = model.encode(UNEVEN, "What moves?", frames=None).layout
    found = re.findall(r"<(\d+\.\d) seconds><\|vision_start\|><\|vision_end\|>", written(layout))
    expected = [0.07, 1.3, 3.275, 8.8]  # the middle of each pair; the last frame stands alone
    np.testing.assert_allclose([float(text) for text in found], expected, rtol=0, atol=0.0501)
    assert model.family.timestamps is not None
    times = model.family.timestamps(layout.visuals[0], layout.seconds)
    np.testing.assert_allclose(times, expected, rtol=0, atol=1e-9)
    for number, text in enumerate(found):
        here = np.flatnonzero((layout.role == "timestamp") & (layout.group == number))
        digits = "".join(layout.tokens[position] for position in here)
        assert text in digits and here[-1] < layout.select(layout.groups[number])[0]


def test_positions_have_three_axes(model: VideoModel) -> None:
    x = model.encode(
        [SHOWN, Picture(clip(1, 32, 32).frames[0]), UNEVEN], "What moves?", frames=None
    )
    layout, expected, here = x.layout, [], 0
    visual = np.isin(layout.role, ("video", "image"))
    position = 0
    while position < len(layout):
        if not visual[position]:
            expected.append((here, here, here))
            here, position = here + 1, position + 1
            continue
        shown = layout.visuals[layout.visual[position]]
        rows, cols = shown.cells or (0, 0)
        expected += [(here, here + r, here + c) for r in range(rows) for c in range(cols)]
        here, position = here + max(rows, cols), position + rows * cols
    assert x.inputs["position_ids"][:, 0].T.tolist() == [list(axes) for axes in expected]


def test_several_clips_and_an_image(model: VideoModel) -> None:
    picture = Picture(clip(1, 48, 32, seed=4).frames[0])
    short = clip(2, 48, 48)
    x = model.encode([SHOWN, picture, short], "What moves?", frames=None)
    layout = x.layout
    assert [visual.label for visual in layout.visuals] == ["video 0", "image 0", "video 1"]
    assert [visual.cells for visual in layout.visuals] == [(2, 3), (3, 2), (3, 3)]
    assert layout.groups[1:] == ("frames 2-3", "frame 4", "frames 5-6")
    assert len(layout.select("image 0")) == 6 and (layout.group[layout.select("image")] == -1).all()
    for shown in (picture, short):
        prove(model, x, shown)


def test_pixels_change_the_tokens_that_the_layout_names(model: VideoModel) -> None:
    prove(model, model.encode(SHOWN, "What moves?", frames=None), SHOWN)


def test_a_clip_of_one_frame_is_refused(model: VideoModel) -> None:
    with pytest.raises(ProbeError):
        model.encode(clip(1), "What moves?", frames=None)


def test_the_attention_is_the_dense_map_and_rope_deltas_stay(kind: str, model: VideoModel) -> None:
    x = model.encode(SHOWN, "What moves?", frames=None, answer="red")
    before = model.hf.model.rope_deltas
    run = model.run(x, [AttentionRows("all"), Contributions("r")])
    model.generate(model.encode(UNEVEN, "And now?", frames=None), max_new_tokens=2)
    assert model.hf.model.rope_deltas is before
    eager = BUILDERS[kind]("eager", seed=3)
    with torch.no_grad():
        out = eager.hf(**x.inputs, output_attentions=True, use_cache=False)
    dense = torch.stack([layer[0] for layer in out.attentions])
    np.testing.assert_allclose(run.data.attention_rows, dense, rtol=0, atol=1e-5)
    np.testing.assert_allclose(run.logits, out.logits[0, x.layout.readout], rtol=0, atol=1e-5)
    assert abs(float(run.data.contributions_error)) < 1e-5


@dataclass(frozen=True)
class Added(Capture):
    """What deepstack adds after each layer, and the residual stream that enters each."""

    def start(self, session: Any) -> dict:
        return {"added": {}, "entering": {}}

    def residual(self, session: Any, state: dict, layer: int, x: torch.Tensor) -> None:
        state["entering"][layer] = x.clone()

    def output(self, session: Any, state: dict, layer: int, part: str, y: torch.Tensor) -> None:
        if part == "deepstack":
            state["added"][layer] = y.clone()

    def finish(self, session: Any, state: dict) -> dict[str, xr.DataArray]:
        return {
            name: xr.DataArray(
                torch.stack(list(tensors.values())).numpy(),
                {f"{name}_layer": list(tensors)},
                (f"{name}_layer", "position", "channel"),
            )
            for name, tensors in state.items()
        }


def test_deepstack_is_captured(model: VideoModel) -> None:
    x = model.encode(SHOWN, "What moves?", frames=None)
    given = x.inputs["pixel_values_videos"], x.inputs["video_grid_thw"]
    entering: list[torch.Tensor] = []
    handles = [
        layer.register_forward_pre_hook(lambda _, args: entering.append(args[0][0]))
        for layer in model.layers
    ]
    with torch.no_grad():
        features = model.hf.get_video_features(*given).deepstack_features
        model.hf(**x.inputs)
    for handle in handles:
        handle.remove()
    data = model.run(x, [Added()]).data
    assert data.added_layer.values.tolist() == [0, 1]
    video = x.layout.select("video")
    for added, (feature,) in zip(data.added.values, features, strict=True):
        np.testing.assert_array_equal(added[video], feature)
        assert not np.delete(added, video, axis=0).any()
        assert feature.norm(dim=-1).min() > 0.5
    np.testing.assert_array_equal(data.entering, torch.stack(entering))


@pytest.mark.parametrize("k", [1, 2])
def test_dropping_is_masking_with_deepstack_too(kind: str, model: VideoModel, k: int) -> None:
    x = model.encode(SHOWN, "What moves?", frames=None, answer="red")
    run = model.run(x, ablate=[fastv(k=k, keep=0.4)])
    dropped = ~run.kept.values[k]
    assert dropped.sum() == 11 and (run.kept.values[k:] == run.kept.values[k]).all()
    eager = BUILDERS[kind]("eager", seed=3)

    def mask(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        hidden = kwargs["attention_mask"].clone()
        hidden[..., torch.as_tensor(dropped)] = torch.finfo(hidden.dtype).min
        return args, kwargs | {"attention_mask": hidden}

    for layer in list(eager.layers)[k:]:
        layer.register_forward_pre_hook(mask, with_kwargs=True)
    with torch.no_grad():
        logits = eager.hf(**x.inputs, use_cache=False).logits[0, x.layout.readout]
    np.testing.assert_allclose(run.logits, logits, rtol=0, atol=1e-5)
    assert np.abs(run.logits - model.run(x).logits).max() > 1e-3
