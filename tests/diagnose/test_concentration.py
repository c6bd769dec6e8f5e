"""Flow of tokens against loops over dense maps, and head ratios."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from probe.ablate.recipes.heads import visual_ratio
from probe.diagnose import Case, Concentration, HeadRatio, diagnose
from probe.diagnose.importance.last_read import LastRead
from probe.models.video_model import VideoModel
from tests import tiny as tiny_models
from tests.diagnose import readings


def flows(eager: VideoModel, x) -> np.ndarray:
    """[layer, token] by explicit vectors: |W_O^h v_j| of each head and token."""
    values: dict[int, np.ndarray] = {}
    hooks = [
        layer.self_attn.v_proj.register_forward_hook(
            lambda module, args, out, n=n: values.update({n: out[0].double().numpy()})
        )
        for n, layer in enumerate(eager.layers)
    ]
    weights = readings.dense(eager, x)
    for hook in hooks:
        hook.remove()
    video = np.flatnonzero(x.layout.role == "video")
    found = np.zeros((eager.n_layers, len(video)))
    for number, layer in enumerate(eager.layers):
        out = layer.self_attn.o_proj.weight.detach().double().numpy()
        for head in range(eager.n_heads):
            kv = head * eager.n_kv_heads // eager.n_heads
            part = slice(head * eager.head_dim, (head + 1) * eager.head_dim)
            v = values[number][:, kv * eager.head_dim : (kv + 1) * eager.head_dim]
            brought = np.linalg.norm(v @ out[:, part].T, axis=-1)
            found[number] += weights[number, head, x.layout.last, video] * brought[video]
    return found


def test_flow_is_attention_times_the_length_of_what_comes(pair) -> None:
    model, eager = pair
    x = tiny_models.example(model)
    expected = flows(eager, x)
    found = Case(model, x).of(LastRead("norm")).sum("head")
    np.testing.assert_allclose(found.values, expected, rtol=2e-4, atol=1e-6)
    one = Concentration()
    values = diagnose(Case(model, x), [one])[one]
    flow = expected.sum(0) / expected.sum()
    assert values["share_below_max"] == np.mean(flow < 0.05 * flow.max())
    assert values["share_below_total"] == np.mean(flow < 0.05)
    least = np.sort(flow)[: int(0.6 * len(flow))].sum()
    assert values["flow_of_least"] == pytest.approx(least, rel=1e-4)
    by_frame = flow.reshape(5, -1).sum(-1)
    np.testing.assert_allclose(values["flow_by_frame"], by_frame, rtol=1e-4)
    below = [np.mean(row < 0.05 * row.max()) for row in expected]
    np.testing.assert_allclose(values["below_max"], below)


def told(model: VideoModel, flow: np.ndarray) -> dict:
    x = tiny_models.example(model)
    coords = {"layer": np.arange(len(flow)), "head": [0], "position": x.layout.select("video")}
    says = {LastRead: xr.DataArray(flow[:, None], coords, list(coords))}
    return dict(Concentration().measure(readings.Told(model, x, says=says)))


def test_all_on_one_token_is_as_concentrated_as_can_be(tiny) -> None:
    flow = np.zeros((4, 20))
    flow[:, 7] = 0.3
    values = told(tiny, flow)
    assert values["share_below_max"] == values["share_below_total"] == pytest.approx(0.95)
    assert values["flow_of_least"] == 0 and values["flow_c20"] == 1
    assert values["effective_tokens"] == pytest.approx(1 / 20)
    assert values["flow_by_frame"].values.tolist() == [0, 1, 0, 0, 0]


def test_the_same_from_each_is_not_concentrated_at_all(tiny) -> None:
    values = told(tiny, np.full((4, 20), 0.1))
    assert values["share_below_max"] == 0
    assert values["flow_of_least"] == pytest.approx(0.6)
    assert values["effective_tokens"] == pytest.approx(1)


def test_no_flow_is_undefined_and_not_zero(tiny) -> None:
    values = told(tiny, np.zeros((4, 20)))
    scalars = [v for v in values.values() if not hasattr(v, "dims")]
    assert np.isnan(scalars).all() and np.isnan(values["below_max"]).all()


def test_a_model_that_brings_nothing_has_no_flow() -> None:
    model = tiny_models.build(tiny_models.EVEN, seed=5)
    with torch.no_grad():
        for layer in model.layers:
            layer.self_attn.o_proj.weight.zero_()
    one = Concentration()
    assert np.isnan(diagnose(Case(model, tiny_models.example(model)), [one])[one]["flow_c20"])


def test_head_ratio_of_the_dense_map(pair) -> None:
    model, eager = pair
    x = tiny_models.example(model)
    one = HeadRatio(theta=[0.2, 0.7, 1.5])
    values = diagnose(Case(model, x), [one])[one]
    weights = readings.dense(eager, x)
    video = np.flatnonzero(x.layout.role == "video")
    text = x.layout.select("text")
    rows = text[text > video[0]]
    a = weights[:, :, rows].mean(2)
    expected = a[..., video].sum(-1) / a[..., text].sum(-1)
    np.testing.assert_allclose(values["head_ratio"], expected, rtol=1e-4)
    np.testing.assert_allclose(values["head_ratio"], visual_ratio(model, x), rtol=1e-5)
    for theta in (0.2, 0.7, 1.5):
        active = (expected >= theta).sum(1)
        assert values["active_heads"].sel(theta=theta).values.tolist() == active.tolist()
        assert values[f"active_heads_{theta:g}"] == active[2:].mean()
    assert values["ratio_median"] == pytest.approx(np.median(expected[2:]), rel=1e-4)
