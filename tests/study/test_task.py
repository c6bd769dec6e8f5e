"""How samples are asked: templates, letters, right answers, clips and images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probe import ProbeError
from probe.models.video_model import VideoModel
from probe.study import Sample, Study, Task
from probe.study.controls import NoClip
from probe.testbed import items, write_clip

CHOICE = Sample("q", None, "What colour?", "blue", ("red", "blue", "green"), "clip",
                meta={"type": "colour"}, texts={"subtitle": "a long talk"})  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Eight frames at 8 a second, each of another grey."""
    frames = (
        np.full((8, 32, 32, 3), 30, np.uint8) * np.arange(1, 9, dtype=np.uint8)[:, None, None, None]
    )
    return str(write_clip(tmp_path_factory.mktemp("clip") / "c.mp4", frames))


def shown(sample: Sample, video: Any) -> Sample:
    return Sample(
        **{**{f: getattr(sample, f) for f in sample.__dataclass_fields__}, "video": video}
    )


def test_options_behind_the_question_have_letters_and_roles(tiny: VideoModel, clip: str) -> None:
    case = Task().case(tiny, shown(CHOICE, clip), 4)
    assert (case.gold, case.answers) == ("B", ("A", "B", "C"))
    assert case.x.prompt.count("What colour?\nA. red\nB. blue\nC. green") == 1
    assert "option 2" in case.x.layout.role and len(case.x.layout.frames) == 4
    assert (case.id, case.video, case.meta["type"]) == ("q", "clip", "colour")


@pytest.mark.parametrize(
    ("prompt", "asked", "gold"),
    [
        ("{question}", "What colour?", "blue"),
        ("{subtitle}\n{question} ({type})", "a long talk\nWhat colour? (colour)", "blue"),
        ("{question}\n{options}\nAnswer with a letter.",
         "What colour?\nA. red\nB. blue\nC. green\nAnswer with a letter.", "B"),
        ("Choose.\n{options}", "Choose.\nA. red\nB. blue\nC. green", "B"),
    ],
)  # fmt: skip
def test_templates(tiny: VideoModel, clip: str, prompt: str, asked: str, gold: str) -> None:
    case = Task(prompt=prompt).case(tiny, shown(CHOICE, clip), 2)
    assert asked in case.x.prompt and case.gold == gold
    assert case.answers == (("A", "B", "C") if "{options}" in prompt else CHOICE.options)


def test_braces_in_a_question_are_its_own(tiny: VideoModel, clip: str) -> None:
    odd = Sample("q", clip, "Is {options} or {x} left?", "yes")
    case = Task("yesno").case(tiny, odd, 2)
    assert "Is {options} or {x} left?" in case.x.prompt
    with pytest.raises(ProbeError, match=r"the prompt has \{subtitle\}, and the sample has no"):
        Task("yesno", "{subtitle} {question}").check(odd)


def test_yes_and_no_are_written_as_the_task_says(tiny: VideoModel, clip: str) -> None:
    sample = Sample("q", clip, "Is it red?", " YES ")
    assert Task("yesno").case(tiny, sample, 2).gold == "yes"
    case = Task("yesno", answers=("Yes", "No")).case(tiny, sample, 2)
    assert (case.gold, case.answers) == ("Yes", ("Yes", "No"))


def test_a_part_of_a_clip(tiny: VideoModel, clip: str) -> None:
    sample = Sample("q", clip, "What?", "x", span=(0.25, 0.75))
    x = Task("open").case(tiny, sample, 3).x
    assert x.clips[0].source_frames.tolist() == [2, 4, 6]


def test_images_as_files_and_in_rows(tiny: VideoModel, tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    (tmp_path / "i.png").write_bytes(buffer.getvalue())
    task = Task("yesno", scores=("margin",))
    made = [
        task.case(tiny, Sample("q", video, "Is it?", "no"))
        for video in (buffer.getvalue(), str(tmp_path / "i.png"))
    ]
    rows = [task.score(case, [[], [NoClip()]]) for case in made]
    assert rows[0] == rows[1] and "image" in made[0].x.layout.role
    assert rows[0][0]["tokens"] > 0 == rows[0][1]["tokens"]
    assert rows[0][0]["margin"] != rows[0][1]["margin"]
    with pytest.raises(ProbeError, match="the image in the row cannot be read"):
        task.case(tiny, Sample("q", b"nothing", "Is it?", "no"))


def test_a_system_prompt_stays_when_the_clip_goes(tiny: VideoModel, clip: str) -> None:
    case = Task("yesno", system="Be brief.").case(tiny, Sample("q", clip, "Is it?", "no"), 2)
    blind = NoClip().prepare(tiny, case.x)
    assert "Be brief." in case.x.prompt and "Be brief." in blind.prompt
    assert not blind.layout.visuals and blind.question == case.x.question


def test_testbed_items_bring_their_truth(tiny: VideoModel) -> None:
    study = Study("s", "testbed/onevision", {"source": "testbed", "n": 12, "seed": 3})
    found = study.load()
    types = ["color", "shape", "direction", "count", "order", "existence"]
    drawn = items("neutral", 12, 3, types)
    assert [s.id for s in found] == [item.id for item in drawn]
    case = study.task.case(tiny, found[0], 8)
    assert case.truth == drawn[0] and case.x.clips[0].frames.shape[0] == 8
    assert (case.gold, case.answers) == (drawn[0].question.answer, drawn[0].question.options)
    assert found[0].cluster == str(drawn[0].scene.seed) and case.meta["type"] == "color"
    for kind, only in (("yesno", "existence"), ("caption", "caption")):
        one = Study("s", "m", {"source": "testbed", "n": 2}, {"kind": kind}).load()
        assert {s.meta["type"] for s in one} == {only}
