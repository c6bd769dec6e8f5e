"""Vision features from a cache: the same logits bit by bit, and a folder that may be damaged."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from probe.ablate import Reduce, Uniform, fastv
from probe.capture import VisionAttention
from probe.models.video_model import VideoModel
from probe.study.features import FeatureCache
from tests import tiny
from tests.families import models

DEFAULT = ("qwen3_vl", "qwen2_5_vl", "llava_onevision", "internvl", "molmo2", "video_llava")
CACHED = [
    pytest.param(name, marks=() if name in DEFAULT else pytest.mark.full)
    for name in models.NAMES
    if name != "instructblipvideo"  # its tower reads the question
]


@pytest.fixture
def cached(tiny: VideoModel, tmp_path: Path):
    """The tiny model with a cache for one test."""
    tiny.feature_cache = FeatureCache(tmp_path)
    yield tiny
    tiny.feature_cache = None


def without(model: VideoModel) -> VideoModel:
    """The same model, without its cache."""
    other = VideoModel(model.hf, model.processor, model.family, model.name)
    assert other.feature_cache is None
    return other


def test_a_tower_that_reads_the_question_is_not_cached(tmp_path: Path) -> None:
    model = models.build("instructblipvideo")
    model.feature_cache = cache = FeatureCache(tmp_path)
    try:
        model.run(models.example(model))
    finally:
        model.feature_cache = None
    assert (cache.hits, cache.misses) == (0, 0) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", CACHED)
def test_logits_are_those_of_the_uncached_run(name: str, tmp_path: Path) -> None:
    model = models.build(name)
    frames = model.family.frames or 5
    shown = tiny.clip(frames, 40, 60)
    questions = "What moves?", "Which of the two is red?"
    several = [model.encode(shown, question, frames=None) for question in questions]
    plain = [model.run(x).logits for x in several]
    said = model.generate(several[1], max_new_tokens=4).logits
    model.feature_cache = cache = FeatureCache(tmp_path)
    try:
        assert np.array_equal(model.run(several[0]).logits, plain[0])
        assert (cache.hits, cache.misses) == (0, 1)
        model.feature_cache = fresh = FeatureCache(tmp_path)  # from the disk, not from memory
        assert np.array_equal(model.run(several[1]).logits, plain[1])
        assert np.array_equal(model.generate(several[1], max_new_tokens=4).logits, said)
        assert (fresh.hits, fresh.misses) == (2, 0)
    finally:
        model.feature_cache = None


def test_the_tower_does_not_run_again(cached: VideoModel, monkeypatch: pytest.MonkeyPatch) -> None:
    x = tiny.example(cached)
    first = cached.run(x)
    seen = []
    convolve = torch.nn.functional.conv2d
    monkeypatch.setattr(
        torch.nn.functional, "conv2d", lambda *a, **k: seen.append(1) or convolve(*a, **k)
    )
    again = cached.run(tiny.example(cached, question="And what is red?"))
    assert not seen
    assert again.cost.macs_vision == first.cost.macs_vision  # what the model takes, not this run
    without(cached).run(x)
    assert seen


def test_sweeps_captures_and_reductions(cached: VideoModel) -> None:
    plain = without(cached)
    x = tiny.example(cached)
    cached.run(x)
    several = [fastv(1, 0.5), Reduce(score=Uniform(), keep=0.5)]
    expected = plain.sweep(x, several).value.tolist()
    assert cached.sweep(x, several).value.tolist() == expected
    assert cached.feature_cache.hits > 0
    for ablation in several:
        one, two = (model.run(x, ablate=[ablation]) for model in (plain, cached))
        assert np.array_equal(one.logits, two.logits)


def test_what_reads_the_tower_runs_it(cached: VideoModel) -> None:
    x = tiny.example(cached)
    cached.run(x)
    before = cached.feature_cache.hits
    wanted = VisionAttention()
    found = cached.run(x, [wanted]).of(wanted)
    assert cached.feature_cache.hits == before
    np.testing.assert_array_equal(found, without(cached).run(x, [wanted]).of(wanted))


def test_other_pixels_weights_and_hooks_are_no_hit(cached: VideoModel) -> None:
    plain, x = without(cached), tiny.example(cached)
    cached.run(x)
    other = tiny.example(cached, tiny.clip(5, seed=1))
    assert np.array_equal(cached.run(other).logits, plain.run(other).logits)
    written = {k: v.clone() if k.startswith("pixel") else v for k, v in x.inputs.items()}
    y = replace(x, inputs=written)
    cached.run(y)
    y.inputs["pixel_values_videos"][0, 0] += 1  # in place, in a tensor that was hashed already
    assert np.array_equal(cached.run(y).logits, plain.run(y).logits)
    weight = next(cached.hf.get_submodule(cached.family.projector).parameters())
    before = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(1.5)
    try:
        changed = plain.run(x).logits
        assert np.array_equal(cached.run(x).logits, changed)
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert not np.array_equal(changed, plain.run(x).logits)
    tower = cached.hf.get_submodule(cached.family.vision)
    handle = tower.encoder.layers[0].register_forward_hook(lambda m, a, out: out * 0.5)
    try:
        hooked = cached.run(x).logits
        assert np.array_equal(hooked, plain.run(x).logits)
    finally:
        handle.remove()
    assert not np.array_equal(hooked, cached.run(x).logits)


@pytest.mark.parametrize("damage", ["torn", "empty", "changed", "no safetensors"])
def test_a_damaged_file_is_a_miss(cached: VideoModel, tmp_path: Path, damage: str) -> None:
    x = tiny.example(cached)
    expected = cached.run(x).logits
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    changed = content[:-5] + bytes([content[-5] ^ 255]) + content[-4:]
    left = {"torn": content[:-100], "empty": b"", "changed": changed, "no safetensors": b"{}" * 99}
    path.write_bytes(left[damage])
    cached.feature_cache = FeatureCache(tmp_path)
    assert np.array_equal(cached.run(x).logits, expected)
    assert cached.feature_cache.misses == 1
    assert path.read_bytes() == content  # and it is whole again


def test_a_half_written_file_is_not_seen(cached: VideoModel, tmp_path: Path) -> None:
    x = tiny.example(cached)
    cached.run(x)
    (path,) = tmp_path.iterdir()
    path.rename(path.with_name(f".{path.name}.1234"))  # as a killed process leaves it
    cached.feature_cache = FeatureCache(tmp_path)
    cached.run(x)
    assert cached.feature_cache.misses == 1 and path.exists()


def test_what_was_not_used_for_longest_goes(tmp_path: Path) -> None:
    tensors = {"features": torch.zeros(100, 25)}  # 10 kB
    cache = FeatureCache(tmp_path, size=50_000)
    for number in range(4):
        cache.put(f"k{number}", tensors)
        os.utime(cache.folder / f"k{number}.safetensors", (number, number))
    assert cache.get("k0") is not None  # used now
    cache.put("k4", tensors)
    there = sorted(path.stem for path in tmp_path.iterdir())
    assert there == ["k0", "k2", "k3", "k4"]
    cache.put("big", {"features": torch.zeros(100_000)})
    assert not (tmp_path / "big.safetensors").exists()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 50_000


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    cache.put("a", {"features": torch.zeros(3)})
    assert FeatureCache(tmp_path).get("a") is None
