"""Every family is examined with nothing found, and broken in its own way it is caught."""

from __future__ import annotations

from functools import wraps

import pytest
from transformers import Qwen2VLForConditionalGeneration

from probe.doctor import doctor
from probe.models.video_model import VideoModel
from tests.doctor import plants
from tests.families import models

SILENT = {  # what a family does not have
    "timestamps": {
        "instructblipvideo", "internvl", "llava_next_video", "llava_onevision", "perception_lm",
        "qwen2_5_vl", "qwen2_vl", "video_llava",
    },
    "layout proof, image": {"instructblipvideo"},
    "positions reach the decoder": {"instructblipvideo"},
    "attention reached, vision tower": {"perception_lm"},
    "ablation SliceMLP": {"qwen3_vl_moe"},
}  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("frames", [4, 5])
@pytest.mark.parametrize("name", models.NAMES)
def test_every_family(name: str, frames: int) -> None:
    model = models.build(name)
    report = doctor(model, frames=frames)
    assert report.ok, report.failed
    skipped = {check.name for check in report.checks if check.status == "skipped"}
    assert skipped == {check for check, names in SILENT.items() if name in names}


@pytest.mark.full
@pytest.mark.parametrize("change", [plants.off_by_one, plants.swapped, plants.backwards])
@pytest.mark.parametrize("name", [n for n in models.NAMES if n != "instructblipvideo"])
def test_a_wrong_grid(name: str, change) -> None:
    model = models.build(name)
    family = plants.with_grid(model.family, change)
    report = doctor(VideoModel(model.hf, model.processor, family, "planted"), frames=4)
    failed = {check.name for check in report.failed}
    # Text of another time stands before frames that are taken for others.
    assert "layout proof" in failed and failed <= {"layout proof", "timestamps"}


@pytest.mark.full
@pytest.mark.parametrize("name", ["qwen2_vl", "internvl", "video_llava"])
def test_a_wrong_grid_of_images_alone(name: str) -> None:
    model = models.build(name)
    family = plants.with_grid(model.family, plants.off_by_one, kind="image")
    report = doctor(VideoModel(model.hf, model.processor, family, "planted"), frames=4)
    assert {check.name for check in report.failed} == {"layout proof, image"}


class Dropped(Qwen2VLForConditionalGeneration):
    """Three-axis positions are lost on the way."""

    @wraps(Qwen2VLForConditionalGeneration.forward)
    def forward(self, *args, position_ids=None, **kwargs):
        return super().forward(*args, **kwargs)


def test_three_axis_positions_that_are_dropped() -> None:
    model = models.build("qwen2_vl")
    hf = Dropped._from_config(model.hf.config, attn_implementation="sdpa").eval()
    hf.load_state_dict(model.hf.state_dict())
    hf.generation_config = model.hf.generation_config
    report = doctor(VideoModel(hf, model.processor, model.family, "planted"), frames=2)
    assert "positions reach the decoder" in {check.name for check in report.failed}
