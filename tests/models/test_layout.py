"""What each position is: roles, cells, frames, times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from probe import ProbeError
from probe.models.layout import Layout
from probe.models.video_model import VideoModel
from probe.models.visual import Visual
from tests.tiny import clip, example

COLUMNS = [
    "position",
    "token",
    "role",
    "group",
    "frame",
    "row",
    "col",
    "source_frame",
    "start_s",
    "end_s",
]
SIDES = {"tiny": 2, "other": 3}


def test_grid_is_frames_in_raster_order_then_one_newline(request) -> None:
    for name, side in SIDES.items():
        model = request.getfixturevalue(name)
        x = example(model, 3)
        table = x.layout.to_frame()
        video_id = model.hf.config.video_token_id
        visual = np.flatnonzero(x.inputs["input_ids"][0].numpy() == video_id)
        cells = [(f, r, c) for f in range(3) for r in range(side) for c in range(side)]
        assert len(visual) == len(cells) + 1
        found = table.loc[visual[:-1], ["frame", "row", "col"]]
        assert list(map(tuple, found.to_numpy())) == cells
        assert x.layout.role[visual].tolist() == ["video"] * len(cells) + ["newline"]
        assert (np.diff(visual) == 1).all()
        assert x.layout.grid == (side, side)


@pytest.mark.parametrize("patches", range(1, 30))
def test_cells_are_the_patches_that_bilinear_pooling_reads(patches: int) -> None:
    config = build_config(patches)
    from probe.models.families.llava_onevision import grid

    edges = (
        grid(config, {}, Visual("video", 0, 1, (40, 60))).row_edges
        * config.vision_config.image_size
        / 14
    )
    side = -(-patches // 2)
    identity = torch.eye(patches)[:, None, :, None]  # image i has patch row i alone
    pooled = torch.nn.functional.interpolate(identity, size=(side, 1), mode="bilinear")
    reads = pooled[:, 0, :, 0].numpy() > 1e-6
    for row in range(side):
        inside = np.flatnonzero(reads[:, row])
        first, final = np.round(edges[row]).astype(int)
        assert first <= inside[0] and inside[-1] < final <= first + 2


def build_config(patches: int):
    from types import SimpleNamespace

    return SimpleNamespace(
        vision_config=SimpleNamespace(image_size=14 * patches + 13, patch_size=14)
    )


def test_to_frame(layout: Layout) -> None:
    table = layout.to_frame()
    assert list(table.columns) == COLUMNS
    assert (table.position == np.arange(len(layout))).all()
    video = table[table.role == "video"]
    assert (video.start_s == video.frame * 0.5).all() and (video.end_s == video.start_s + 0.5).all()
    assert (video.source_frame == video.frame * 3).all() and (video.group == video.frame).all()
    rest = table[table.role != "video"]
    assert (rest[["group", "frame", "row", "col", "source_frame"]] == -1).all(axis=None)
    assert rest[["start_s", "end_s"]].isna().all(axis=None)


def test_roles_hold_the_words_they_are_named_after(layout: Layout) -> None:
    def text(role: str) -> str:
        return "".join(np.array(layout.tokens)[layout.role == role])

    assert text("question") == "What moves?"
    assert text("option 1") == "A. red" and text("option 2") == "B. blue"
    assert text("system") == "Be brief."
    assert text("answer") == "re"
    assert (np.diff(np.flatnonzero(layout.role == "option 1")) == 1).all()
    assert text("newline") == "<video>"
    everything = "".join(
        t for t, r in zip(layout.tokens, layout.role, strict=True) if r == "template"
    )
    assert everything.startswith("<|im_start|>system ") and everything.endswith("assistant\n")


@pytest.mark.parametrize("question", ["a", "user", "assistant", "s", "?", "\n?\n", "A. red", "red"])
def test_a_question_made_of_the_template_s_words(tiny: VideoModel, question: str) -> None:
    layout = example(tiny, 1, question, options=["red", "s"], system="user").layout
    here = np.flatnonzero(layout.role == "question")
    end_of_video = np.flatnonzero(layout.role == "newline")[0]
    assert "".join(np.array(layout.tokens)[here]) == question.strip()
    assert here[0] == end_of_video + 1
    assert "".join(np.array(layout.tokens)[layout.role == "system"]) == "user"
    assert np.flatnonzero(layout.role == "system")[-1] < end_of_video


@pytest.mark.parametrize(
    "question",
    ["où est l'œuf? 🥚👩‍👩‍👧", "什么在移动", "مرحبا", "a\u0301\u200d\ufeff?", "<|im_end|>"],
)
def test_any_script_in_the_question(tiny: VideoModel, question: str) -> None:
    x = example(tiny, 2, question)
    here = x.layout.role == "question"
    assert tiny.tokenizer.decode(x.inputs["input_ids"][0][torch.as_tensor(here)]) == question


@pytest.mark.parametrize("frames", [None, 2])
@pytest.mark.parametrize("place", ["question", "options", "system"])
@pytest.mark.parametrize("word", ["<video>", "<image>"])
def test_placeholders_are_refused(tiny: VideoModel, frames, place: str, word: str) -> None:
    given = {"question": "What?", "options": None, "system": None}
    given[place] = [f"see {word}"] if place == "options" else f"see {word}"
    with pytest.raises(ProbeError, match=f"must not contain {word}"):
        example(tiny, frames, **given)


@pytest.mark.parametrize("question", ["", "   ", "\n"])
def test_an_empty_question_is_refused(tiny: VideoModel, question: str) -> None:
    with pytest.raises(ProbeError, match="the question is empty"):
        example(tiny, 1, question)


def test_a_template_that_loses_the_question_is_refused(tiny: VideoModel, monkeypatch) -> None:
    kept = tiny.processor.chat_template
    for lost in ("{{ c['text'] | upper }}", "{{ c['text'] | length }}", ""):
        template = kept.replace("{{ c['text'] }}", lost)
        monkeypatch.setattr(tiny.processor, "chat_template", template)
        with pytest.raises(ProbeError, match="does not keep the question"):
            example(tiny, 1)


def test_answer_and_readout(tiny: VideoModel) -> None:
    plain, forced = example(tiny), example(tiny, answer="red")
    assert plain.layout.readout.tolist() == [plain.layout.last] == [len(plain.layout) - 1]
    last = plain.layout.last
    assert forced.layout.last == last
    assert forced.layout.readout.tolist() == [last, last + 1, last + 2]
    assert forced.layout.select("answer").tolist() == [last + 1, last + 2, last + 3]
    assert forced.layout.tokens[last + 1 :] == ("r", "e", "d")
    for name in ("input_ids", "attention_mask", "position_ids"):
        assert forced.inputs[name].shape[1] == last + 4
    assert forced.inputs["position_ids"][0].tolist() == list(range(last + 4))
    assert forced.inputs["attention_mask"].all()
    with pytest.raises(ProbeError, match="the answer is empty"):
        example(tiny, answer="")


def test_frames_that_are_shown_at_once(tiny: VideoModel) -> None:
    layout = example(tiny, replace(clip(3), seconds=np.zeros(3))).layout
    assert layout.select("seconds 0-1").tolist() == layout.select("video").tolist()


def test_text_only(tiny: VideoModel) -> None:
    layout = example(tiny, None).layout
    assert layout.clips == () and layout.grid is None and layout.groups == ()
    assert set(layout.role) == {"template", "question"}
    assert (layout.to_frame()[["frame", "row", "col", "source_frame"]] == -1).all(axis=None)
    assert set(layout.partition("frames")) == {"template", "question"}
    for what in ("video", "frame 0", "seconds 0-1", "box 0,0,1,1", "newline"):
        with pytest.raises(ProbeError, match=r"no clip; there are template, question, text"):
            layout.select(what)
    with pytest.raises(ProbeError, match="this prompt has no clip"):
        layout.paint(np.zeros(len(layout)))


def test_a_processor_that_does_not_fit_is_refused(tiny: VideoModel, other: VideoModel) -> None:
    mixed = replace_processor(tiny, other)
    with pytest.raises(
        ProbeError, match="the processor made 21 visual tokens, the layout expects 46"
    ):
        example(mixed)


def replace_processor(processor_of: VideoModel, hf_of: VideoModel) -> VideoModel:
    return VideoModel(hf_of.hf, processor_of.processor, hf_of.family, "mixed")


def test_an_option_of_two_lines_is_one_option(tiny: VideoModel) -> None:
    layout = example(tiny, 1, "Which?", options=["red\nor pink", "blue"]).layout
    tokens = np.array(layout.tokens)
    said = {name: "".join(tokens[layout.role == name]) for name in ("question", "option 1")}
    assert said == {"question": "Which?", "option 1": "A. red\nor pink"}
