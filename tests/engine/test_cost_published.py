"""Every published figure is pinned: the number computed, and whether the printed one is reached."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

from probe.cost import Shape, predict

ROOT = Path(__file__).parents[2]

PINNED: dict[tuple[str, str, str], tuple[float, str]] = {
    ("prompt", "none", "LLaVA-OneVision-7B, 32 frames"): (40.765, "yes"),
    ("prompt", "HoliTom", "keep 25 %, half from layer 18"): (17.44, "yes"),
    ("prompt", "HoliTom", "keep 10 %, half from layer 18"): (6.91, "yes"),
    ("prompt", "FastV", "k=2, keep 20 %"): (22.83, "yes"),
    ("prompt", "FastV", "LLaVA-1.5-7B, k=3, half"): (56.66, "yes"),
    ("prompt", "DyCoke", "none"): (41.39, "yes"),
    ("prompt", "DyCoke", "K=0.3, as published"): (30.79, "yes"),
    ("prompt", "DyCoke", "K=0.5, as published"): (24.17, "to 0.3%"),
    ("prompt", "DyCoke", "K=0.7, as published"): (17.91, "yes"),
    ("prompt", "DyCoke", "K=0.7, as published, part"): (43.27, "yes"),
    ("prompt", "DyCoke", "K=0.7, as coded"): (18.68, "no"),
    ("prompt", "FastVID", "10 %, 19 of 196 a frame"): (8.26, "yes"),
    ("prompt", "Fourier-VLM", "12 x 12 = 144 tokens"): (75.55, "no"),
    ("prompt", "Fourier-VLM", "8 x 8 = 64 tokens"): (84.08, "to 0.3%"),
    ("tower", "EarlyTom", "LLaVA-OneVision-7B with its tower"): (51.02, "no"),
    ("token", "DyCoke", "K=0.7, as published"): (47.5, "yes"),
    ("token", "DyCoke", "K=0.7, as coded, 32 frames"): (49.39, "no"),
    ("token", "DyCoke", "K=0.7, as coded, 16 frames"): (51.59, "no"),
    ("token", "DyCoke", "K=0.7, as coded, 8 frames"): (55.99, "no"),
    ("token", "DyCoke", "K=1, as coded: its fewest"): (28.13, "no"),
    ("token", "DyCoke", "retained 14.25 %"): (14.25, "yes"),
    ("token", "FastVID", "pruned 90.3 %"): (90.31, "yes"),
    ("token", "DART", ".2222 of 576"): (124, "no"),
    ("token", "SparseVLM", "192 tokens, counts alone"): (188.19, "no"),
    ("token", "SparseVLM", "192 tokens, recycled ones too"): (192.03, "yes"),
    ("token", "SparseVLM", "128 tokens, counts alone"): (123.94, "no"),
    ("token", "SparseVLM", "128 tokens, recycled ones too"): (128.63, "to 0.5%"),
    ("token", "SparseVLM", "64 tokens, counts alone"): (61.72, "no"),
    ("token", "SparseVLM", "64 tokens, recycled ones too"): (64.81, "no"),
    ("token", "SparseVLM v2", "192 tokens"): (192.44, "yes"),
    ("token", "SparseVLM v2", "128 tokens"): (128.0, "yes"),
    ("token", "SparseVLM v2", "64 tokens"): (64.44, "yes"),
    ("token", "PyramidDrop", "half each at 8, 16, 24 of 32"): (46.88, ""),
    ("tower", "FastV", "k=2, keep 20 %"): (61.87, "yes"),
    ("tower", "VisionZip", "keep 25%"): (61.15, "to 0.1%"),
    ("tower", "VisionZip", "keep 20%"): (58.94, "yes"),
    ("tower", "VisionZip", "keep 15%"): (56.79, "yes"),
    ("tower", "VisionZip", "keep 10%"): (54.68, "yes"),
    ("tower", "HoliTom", "keep 25%"): (59.21, "to 0.1%"),
    ("tower", "HoliTom", "keep 20%"): (57.57, "to 0.1%"),
    ("tower", "HoliTom", "keep 15%"): (55.77, "to 0.1%"),
    ("tower", "HoliTom", "keep 10%"): (54.01, "yes"),
    ("tower", "PyramidDrop", "half each at 7, 14, 21"): (72.43, "no"),
}


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "experiments" / "cost_published.py"))


def test_every_figure_is_pinned(script: dict[str, Any]) -> None:
    found = {
        (table, one.method, one.setting): one
        for table in ("prompt", "tower", "token")
        for one in script[f"{table}_figures"]()
    }
    assert set(found) == set(PINNED)
    for place, (computed, reached) in PINNED.items():
        assert found[place].computed == pytest.approx(computed, abs=0.006), place
        assert found[place].reached == reached, place


def test_the_committed_table_is_what_the_script_writes(script: dict[str, Any]) -> None:
    written = (ROOT / "figures" / "cost_published.md").read_text(encoding="utf-8")
    assert written == script["text"]()


def test_the_shape_is_that_of_the_checkpoints_config(script: dict[str, Any]) -> None:
    """The numbers of llava-hf/llava-onevision-qwen2-7b-ov-hf, through transformers' config."""
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=1152,
            intermediate_size=4304,
            num_hidden_layers=26,
            num_attention_heads=16,
            image_size=384,
            patch_size=14,
        ),
        text_config=Qwen2Config(
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
            vocab_size=152000,
        ),
    )
    shape, ours = Shape.of(config), script["ONEVISION"]
    assert shape.tower == ours.tower and shape.tower is not None and shape.tower.cells == (27, 27)
    one = predict(config, ([196] * 32, 0), "fastv(k=2, keep=0.2)")
    assert one.lengths == script["video"]((2, 1254)).__class__(
        (6272,) * 2 + (1254,) * 26, (6272,) * 2 + (1254,) * 26, 0
    )
    assert one.ratio("fastv") == pytest.approx(0.2283, abs=5e-5)
    assert one.macs_full("fastv") == pytest.approx(40.765e12, rel=1e-4)
    assert one.macs_full() == pytest.approx(48.82e12, rel=1e-4)


def test_recipes_state_what_the_table_states(script: dict[str, Any]) -> None:
    image, video = (script["LLAVA"], (576, 0)), (script["ONEVISION"], ([196] * 32, 0))
    assert predict(*image, "dart()").lengths.visual[-1] == 124
    part = predict(script["LLAVA"], (576, 36), "fastv(k=3, keep=0.5)").ratio("fastv")
    assert part == pytest.approx(0.5666, abs=5e-5)
    assert predict(*video, "visionzip()").lengths.visual == (32 * 50,) * 28
