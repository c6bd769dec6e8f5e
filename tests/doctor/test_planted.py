"""Broken adapters and models are caught, each by the check that is about it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from probe.ablate import Knockout
from probe.doctor import Report, doctor
from probe.models.video_model import VideoModel
from tests import tiny
from tests.doctor import plants
from tests.families import models


def failed(report: Report) -> set[str]:
    return {check.name for check in report.failed}


def skipped(report: Report) -> set[str]:
    return {check.name for check in report.checks if check.status == "skipped"}


@pytest.mark.parametrize("change", [plants.off_by_one, plants.swapped, plants.backwards])
@pytest.mark.parametrize("name", ["tiny", pytest.param("other", marks=pytest.mark.full)])
def test_a_wrong_grid(name: str, change: Callable, request: pytest.FixtureRequest) -> None:
    model: VideoModel = request.getfixturevalue(name)
    family = plants.with_grid(model.family, change)
    report = doctor(VideoModel(model.hf, model.processor, family, "planted"), frames=3)
    assert failed(report) == {"layout proof"}
    assert "token" in report["layout proof"].detail and report["layout proof"].todo


def test_edges_from_the_wrong_side() -> None:
    """Cells of 5 patches pooled to 3 are not symmetric."""
    model = models.build("llava_onevision")
    edges = plants.with_grid(model.family, plants.mirrored)
    grid = model.family.grid
    assert grid is not edges.grid
    report = doctor(VideoModel(model.hf, model.processor, edges, "planted"), frames=2)
    assert failed(report) == {"layout proof"}


def test_the_newline_taken_for_a_video_token(tiny: VideoModel) -> None:
    family = plants.with_grid(tiny.family, plants.rolled)
    report = doctor(VideoModel(tiny.hf, tiny.processor, family, "planted"), frames=2)
    assert failed(report) == {"layout proof"}


def test_a_wrong_placeholder(tiny: VideoModel) -> None:
    report = doctor(plants.with_family(tiny, video_token="image_token_id"), frames=2)
    assert failed(report) == {"encodes a clip"}
    assert len(report.checks) == 1


def test_wrong_seconds() -> None:
    model = models.build("qwen3_vl")
    late = plants.with_family(
        model, timestamps=lambda visual, s: model.family.timestamps(visual, s + 0.3)
    )
    report = doctor(late, frames=4)
    assert failed(report) == {"timestamps"}
    assert report["timestamps"].value == pytest.approx(0.3, abs=0.051)


def test_a_check_that_raises_stops_no_other(tiny: VideoModel) -> None:
    def broken(visual, seconds):
        raise RuntimeError("planted\nhere")

    report = doctor(plants.with_family(tiny, timestamps=broken), frames=2)
    assert failed(report) == {"timestamps"}
    assert report["timestamps"].detail == "RuntimeError: planted here"
    assert report["model restored"].status == "ok"


def test_a_decoder_layer_that_bypasses_the_attention_function() -> None:
    path = "model.language_model.layers.2.self_attn"
    report = doctor(plants.with_module(path, plants.OwnAttention, 2), frames=2)
    assert failed(report) == {"attention reached, decoder"}
    assert "layer 2 (OwnAttention)" in report["attention reached, decoder"].detail
    assert "attention mass sums to 1" in skipped(report)


def test_a_vision_layer_that_bypasses_the_attention_function() -> None:
    path = "model.vision_tower.encoder.layers.1.self_attn"
    report = doctor(plants.with_module(path, plants.OwnVisionAttention), frames=2)
    assert failed(report) == {"attention reached, vision tower"}
    assert "layer 1 (OwnVisionAttention)" in report["attention reached, vision tower"].detail


def test_positions_that_the_forward_drops() -> None:
    report = doctor(plants.remade(plants.DroppedPositions), frames=2)
    assert failed(report) == {"positions reach the decoder"}
    assert "got no position ids" in report["positions reach the decoder"].detail


def test_positions_that_the_decoder_ignores() -> None:
    report = doctor(plants.with_module("model.language_model", plants.IgnoredPositions), frames=2)
    assert "positions reach the decoder" in failed(report)
    assert "changes no logit" in report["positions reach the decoder"].detail


def test_an_attention_with_a_sink() -> None:
    """A column that no key stands for takes weight: the statistics would not be the model's."""

    def sink(module, query, key, value, mask, **kwargs):
        output, weights = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
        return output * 0.9, weights

    AttentionInterface.register("sdpa_with_a_sink", sink)
    model = tiny.build()
    for layer in model.layers:
        layer.self_attn.config._attn_implementation_internal = "sdpa_with_a_sink"
    report = doctor(model, frames=2)
    assert "attention output against dense float64" in failed(report)
    assert report["attention output against dense float64"].value > 0.05
    assert report["statistics against dense float64"].status == "ok"


def test_an_ablation_that_does_nothing(tiny: VideoModel) -> None:
    one, two = plants.Nothing("video -> text"), plants.NeverNeutral("video -> text")
    report = doctor(tiny, frames=2, ablate=[one, two, Knockout("frame 1 -> last")])
    assert failed(report) == {f"ablation {one}", f"ablation {two}"}
    assert "did not fire" in report[f"ablation {one}"].detail
    assert "not bit-identical" in report[f"ablation {two}"].detail
    assert report[f"ablation {Knockout('frame 1 -> last')}"].status == "ok"


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (plants.CountingCalls, "tensor calls"),
        (plants.KeepingStates, "seen"),
        (plants.ChangingConfig, "config"),
    ],
)
def test_a_model_that_leaks_state(kind: type, what: str) -> None:
    report = doctor(plants.remade(kind), frames=2)
    assert failed(report) == {"model restored"}
    assert what in report["model restored"].detail


def test_contributions_that_leave_a_norm_out(tiny: VideoModel) -> None:
    wrong = plants.with_family(tiny, added=("self_attn", "post_attention_layernorm"))
    report = doctor(wrong, frames=2)
    assert failed(report) == {"contributions sum to the logit"}


def test_logits_that_are_not_numbers() -> None:
    model = tiny.build()
    with torch.no_grad():
        model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    report = doctor(model, frames=2)
    assert "forward pass" in failed(report)
    assert report["layout proof"].status == "ok"
    assert report["attention reached, decoder"].status == "skipped"


def test_a_model_that_draws_random_numbers() -> None:
    model = tiny.build()
    model.layers[1].mlp.register_forward_hook(
        lambda _, __, y: torch.nn.functional.dropout(y, 0.5, training=True)
    )
    torch.manual_seed(0)
    report = doctor(model, frames=2)
    assert "forward pass" in failed(report)
    assert report["forward pass"].value > report["forward pass"].limit


def test_sums_without_a_fixed_order_are_no_failure() -> None:
    """On some devices equal calls differ by rounding; bit-identity is compared up to that."""
    model = tiny.build()
    signs = iter(range(10_000))

    def jitter(module, args, y):
        return y * (1 + 3e-7 * (-1) ** next(signs))

    model.layers[1].mlp.register_forward_hook(jitter)
    report = doctor(model, frames=2)
    assert 0 < report["forward pass"].value < 1e-5
    assert report.ok, report.failed
