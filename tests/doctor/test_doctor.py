"""The doctor on healthy models, what it prints, and that it leaves nothing behind."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import typer

from probe import ProbeError, load
from probe.doctor import doctor
from probe.doctor.cases import WRITTEN
from probe.doctor.command import command
from probe.doctor.eager import eager_maps
from probe.doctor.fingerprint import bits
from probe.doctor.memory import needs
from probe.doctor.subject import Subject, entering
from probe.doctor.table import line, summary
from probe.models.video_model import VideoModel
from tests import tiny as tiny_models
from tests.snapshot import same, snapshot
from tests.tiny import clip, dense, example

NAMES = [
    "encodes a clip",
    "forward pass",
    "placeholders",
    "layout proof",
    "layout proof, image",
    "timestamps",
    "positions reach the decoder",
    "positions are transformers' own",
    "attention reached, decoder",
    "attention reached, vision tower",
    "attention mass sums to 1",
    "capturing changes no logit",
    "statistics against dense float64",
    "attention output against dense float64",
    "statistics against eager attention",
    "contributions sum to the logit",
    "dropping tokens equals masking them",
    "a sweep is its runs",
    "generate is transformers' own",
    "generate against full recompute",
    "generate against recompute, tokens dropped",
    "memory",
    "model restored",
]
HOLD_NUMBERS = ("Steer", "SparseReconstruction", "Patch")


@pytest.mark.parametrize("name", ["tiny", "other", "tiny_eager"])
def test_healthy_models(name: str, request: pytest.FixtureRequest) -> None:
    model: VideoModel = request.getfixturevalue(name)
    entering(model, example(model))  # transformers sets up its towers in their first forward
    before = snapshot(model.hf)
    report = doctor(model, frames=3)
    same(before, snapshot(model.hf))
    assert report.ok, report.failed
    assert [c.name for c in report.checks if not c.name.startswith("ablation")] == NAMES
    ablations = {c.name for c in report.checks if c.name.startswith("ablation")}
    assert ablations == {f"ablation {name}" for name in (*WRITTEN, *HOLD_NUMBERS)}
    assert [c.name for c in report.checks if c.status == "skipped"] == ["timestamps"]
    numbers = [c for c in report.checks if c.value is not None]
    assert len(numbers) > 12 and all(0 <= c.value <= c.limit <= 1e-5 for c in numbers)


def test_the_built_in_checkpoint() -> None:
    report = doctor(load("testbed/onevision"), frames=3)
    assert report.ok, report.failed
    tokens = 36 * 3
    assert f"each of {tokens} video tokens" in report["layout proof"].detail


@pytest.mark.parametrize("frames", [1, 6])
def test_other_numbers_of_frames(tiny: VideoModel, frames: int) -> None:
    report = doctor(tiny, frames=frames)
    assert report.ok and report.facts["frames"] == frames


def test_half_precision_has_its_own_limits() -> None:
    model = tiny_models.build()
    model.hf.to(torch.bfloat16)
    report = doctor(model, frames=2)
    assert report.ok, report.failed
    assert report.facts["limits"] == "bfloat16"
    assert 1e-4 < report["generate against full recompute"].limit < 0.1
    assert report["statistics against dense float64"].value < 1e-4


@pytest.mark.full
def test_a_clip_of_one_s_own(tiny: VideoModel, tmp_path) -> None:
    report = doctor(tiny, clip=clip(5), frames=4)
    assert report.ok and report.facts["tokens"] > len(example(tiny, 4).layout)
    report = doctor(tiny, clip=clip(5).frames, frames=3)
    assert report.ok and report.facts["frames"] == 3
    with pytest.raises(ProbeError, match="no such file"):
        doctor(tiny, clip=str(tmp_path / "none.mp4"))
    with pytest.raises(ProbeError, match="is an image; give a video"):
        doctor(tiny, clip=clip(1).frames[0])
    with pytest.raises(ProbeError, match="show it at least 1"):
        doctor(tiny, frames=0)


def test_eager_maps_are_those_of_an_eager_model(tiny: VideoModel, tiny_eager: VideoModel) -> None:
    x = example(tiny)
    found: dict[int, np.ndarray] = {}
    eager_maps(tiny, x, lambda layer, weights: found.update({layer: weights.numpy()}))
    assert sorted(found) == list(range(tiny.n_layers))
    maps = np.stack([found[n] for n in sorted(found)])
    # The vision tower of the other model is eager too.
    np.testing.assert_allclose(maps, dense(tiny_eager, x), rtol=0, atol=1e-6)


def test_memory_of_longer_clips_is_that_of_longer_clips(other: VideoModel) -> None:
    from probe.capture import AttentionEntropy, AttentionMass, AttentionReceived
    from probe.doctor.example import QUESTION, noise_clip
    from probe.doctor.limits import limits

    shown = noise_clip(2, (70, 70))
    x = other.encode(shown, QUESTION, frames=None)
    found = needs(Subject(other, shown, x, x, limits(other.hf)))
    assert [need.frames for need in found] == [8, 32, 128]
    for need in found[:2]:
        y = other.encode(noise_clip(need.frames, (70, 70)), QUESTION, frames=None)
        captures = [AttentionMass(), AttentionEntropy(), AttentionReceived()]
        expected = other.estimate(y, captures).set_index("part").loc["together", "bytes"]
        assert need.tokens == len(y.layout) and need.run == expected


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.bool, torch.int64]
)
def test_bits_see_a_change(dtype: torch.dtype) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    before = bits(tensor)
    assert bits(tensor.clone()) == before
    assert bits(tensor.T) == before  # the same numbers
    tensor[0, 0] = 1
    assert bits(tensor) != before
    assert bits(torch.zeros(2, device="meta")) is None


def test_json_and_table(tiny: VideoModel, capsys, monkeypatch) -> None:
    import probe

    monkeypatch.setattr(probe, "load", lambda name: tiny, raising=False)
    command("testbed/onevision", json=True, frames=2)
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] and found["dtype"] == "float32" and found["frames"] == 2
    assert {check["status"] for check in found["checks"]} == {"ok", "skipped"}
    command("testbed/onevision", frames=2)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(found["checks"]) + 2
    assert printed[1].split("\t")[:2] == ["ok", "encodes a clip"]


def test_exit_code_1_and_what_to_do(tiny: VideoModel, capsys, monkeypatch) -> None:
    import probe
    from tests.doctor import plants

    wrong = plants.with_family(tiny, video_token="image_token_id")
    monkeypatch.setattr(probe, "load", lambda name: wrong, raising=False)
    for json_wanted in (True, False):
        with pytest.raises(typer.Exit) as stopped:
            command("x", json=json_wanted, frames=2)
        assert stopped.value.exit_code == 1
    assert "to do:" in capsys.readouterr().out
    report = doctor(wrong, frames=2)
    assert not report.ok and not report.to_json()["ok"]
    status, name, said = line(report.checks[0])
    assert (status, name) == ("failed", "encodes a clip") and "to do:" in said
    assert summary(report) == "1 failed; do not trust it yet"
