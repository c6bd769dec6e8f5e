"""Shift and dispersion of attention against dense maps, and on uniform attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.capture import VisionAttention
from probe.diagnose import AttentionShift, Case, diagnose
from probe.diagnose.attention_queries import QueriesThatSee
from probe.diagnose.attention_shift import SETS, slope, top_share
from probe.errors import ProbeError
from probe.models.video_model import VideoModel
from tests import tiny as tiny_models
from tests.diagnose import readings
from tests.families import masks, models


def measured(model: VideoModel, x, **how) -> dict:
    one = AttentionShift(**how)
    return diagnose(Case(model, x), [one])[one]


def line(values: np.ndarray) -> np.ndarray:
    """Slope by least squares, a fit at a time."""
    place = np.linspace(0, 1, values.shape[-1])
    flat = (values / values.mean(-1, keepdims=True)).reshape(-1, values.shape[-1])
    return np.array([np.polyfit(place, row, 1)[0] for row in flat]).reshape(values.shape[:-1])


def test_slopes_are_those_of_the_dense_map(pair) -> None:
    model, eager = pair
    x = tiny_models.example(model)
    values = measured(model, x)
    a = readings.dense(eager, x).mean(1)
    video = np.flatnonzero(x.layout.role == "video")
    visible = np.tril(np.ones(a.shape[1:]))
    uniform = visible / visible.sum(-1, keepdims=True)
    for number, what in enumerate(SETS.values()):
        rows = x.layout.select(what)
        mass = a[:, rows][:, :, video].sum(1)
        seen = visible[rows][:, video].sum(0)
        np.testing.assert_allclose(values["slope"][number], line(mass / seen), atol=2e-4)
        fair = mass / uniform[rows][:, video].sum(0)
        np.testing.assert_allclose(values["slope_over_uniform"][number], line(fair), atol=2e-4)
    last = a[:, x.layout.last][:, video]
    count = -(-len(video) // 5)
    top = np.array([sorted(row)[::-1][:count] for row in last]).sum(-1) / last.sum(-1)
    np.testing.assert_allclose(values["c20"], top, atol=1e-5)
    assert values["c20_llm"] == pytest.approx(top[1], abs=1e-5)
    frames = last.reshape(len(last), 5, -1)
    few = -(-frames.shape[-1] // 5)
    of_frame = np.sort(frames, -1)[..., -few:].sum(-1) / frames.sum(-1)
    np.testing.assert_allclose(values["c20_frames"], of_frame.mean(-1), atol=1e-5)


def test_uniform_attention_has_no_slope() -> None:
    model = tiny_models.build(tiny_models.EVEN, seed=4)
    with torch.no_grad():
        for layer in model.layers:
            layer.self_attn.q_proj.weight.zero_()
            layer.self_attn.q_proj.bias.zero_()
    x = tiny_models.example(model)
    values = measured(model, x)
    for name in SETS:
        assert values[f"over_uniform_slope_{name}"] == pytest.approx(0, abs=1e-5)
    for name in ("text", "last"):
        assert values[f"shift_slope_{name}"] == pytest.approx(0, abs=1e-5)
    # As published, sets that lie inside the clip fall all the same: later rows have more keys.
    video = x.layout.select("video")
    rows = [1 / (np.arange(p, video[-1] + 1) + 1) for p in video]
    expected = line(np.array([row[np.isin(np.arange(p, video[-1] + 1), video)].mean()
                              for p, row in zip(video, rows, strict=True)]))  # fmt: skip
    assert values["shift_slope_image"] == pytest.approx(float(expected), abs=1e-4) and expected < 0
    assert values["c20_llm"] == pytest.approx(4 / 20, abs=1e-6)


def test_c20_of_cls_is_that_of_the_towers_attention() -> None:
    model = models.build("video_llava")
    x = models.example(model)
    values = measured(model, x)
    attention = model.run(x, [VisionAttention()]).data.vision_attention
    layer = attention.isel(vision_layer=-2, vision_query=0).mean("vision_head").values
    count = -(-layer.shape[-1] // 5)
    top = np.sort(layer, -1)[:, -count:].sum(-1) / layer.sum(-1)
    assert values["c20_cls"] == pytest.approx(top.mean(), abs=1e-6)
    assert values["c20_gap"] == pytest.approx(values["c20_cls"] - values["c20_llm_frames"])
    assert np.isnan(values["c20_received"]) and np.isnan(values["gap_received"])


def test_a_tower_without_cls_has_a_proxy_under_another_name(tiny) -> None:
    values = measured(tiny, tiny_models.example(tiny))
    assert np.isnan(values["c20_cls"]) and np.isnan(values["c20_gap"])
    assert 0.2 < values["c20_received"] < 1


@pytest.mark.parametrize("name", ["molmo2", "qwen2_5_vl"])
def test_who_sees_a_position_is_the_models_own_mask(name: str) -> None:
    model = models.build(name)
    x = models.example(model)
    see = Case(model, x).of(QueriesThatSee(["all", "last"]))
    seen = (masks.attentions(models.build(name, "eager"), x) > 0).any(1)  # [layer, query, key]
    np.testing.assert_array_equal(see.sel(quantity="rows", query_group="all"), seen.sum(1))
    uniform = (seen / seen.sum(-1, keepdims=True)).sum(1)
    np.testing.assert_allclose(see.sel(quantity="uniform", query_group="all"), uniform, atol=1e-4)
    assert (see.sel(quantity="rows", query_group="last") == 1).all()


def test_slope_and_share_of_known_lines() -> None:
    place = np.linspace(0, 1, 11)
    assert slope(1 + place) == pytest.approx(1 / 1.5)
    assert slope(np.ones(11)) == pytest.approx(0)
    assert np.isnan(slope(np.zeros(11)))
    assert top_share(np.array([0, 0, 0, 0, 5.0])) == 1
    assert top_share(np.ones(10)) == pytest.approx(0.2)
    assert top_share(np.array([4.0, 3, 2, 1, 0, 0])) == pytest.approx(0.7)  # 1.2 tokens: two


def test_no_such_layer(tiny) -> None:
    with pytest.raises(ProbeError, match="layers 0 to 3"):
        measured(tiny, tiny_models.example(tiny), layer=4)
