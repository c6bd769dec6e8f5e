"""Several clips, images and turns in one prompt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from probe import ProbeError
from probe.capture import AttentionMass
from probe.models.video_model import VideoModel
from tests import tiny as tiny_models
from tests.families import masks, models
from tests.tiny import clip

PICTURE = np.random.default_rng(3).integers(0, 255, (50, 90, 3), dtype=np.uint8)


@pytest.fixture(params=["llava_onevision", "qwen2_5_vl", "smolvlm"])
def model(request: pytest.FixtureRequest) -> VideoModel:
    return models.build(request.param)


def test_two_clips_are_numbered_through(model: VideoModel) -> None:
    first, second = clip(4, 40, 60), clip(4, 40, 60, seed=1)
    x = model.encode([first, second], "Which is longer?", frames=None)
    layout = x.layout
    assert [visual.label for visual in layout.visuals] == ["video 0", "video 1"]
    assert len(layout.seconds) == 8 and x.clips == (first, second)
    assert layout.seconds.tolist() == [*first.seconds, *second.seconds]
    assert layout.frames[-1][-1] == 7
    mine, other = layout.select("video 0"), layout.select("video 1")
    assert np.array_equal(np.union1d(mine, other), layout.select("video"))
    assert mine.max() < other.min()
    assert set(layout.select("frame 4")) <= set(other)
    assert set(layout.select("frames 0-3")) == set(mine)
    alone = model.encode(second, "Which is longer?", frames=None).layout
    assert alone.col[alone.select("video")].tolist() == layout.col[other].tolist()
    table = layout.to_frame().loc[other]
    assert table.frame.min() == 4 and table.start_s.min() == 0
    run = model.run(x, [AttentionMass()])
    np.testing.assert_allclose(run.data.attention_mass.sum("key_group"), 1, atol=1e-5)


def test_the_second_clip_is_where_the_layout_says(model: VideoModel) -> None:
    first, second = clip(4, 40, 60), clip(4, 40, 60, seed=1)
    other = clip(4, 40, 60, seed=2)
    before, after = (
        embedded(model, model.encode([first, last], "Which?", frames=None))
        for last in (second, other)
    )
    x = model.encode([first, second], "Which?", frames=None)
    changed = np.flatnonzero(np.abs(before - after).max(1) > 1e-6)
    assert set(changed) == set(x.layout.select("video 1"))


def test_a_clip_and_an_image(model: VideoModel) -> None:
    x = model.encode([clip(4, 40, 60), PICTURE], "Is it in the clip?", frames=None)
    layout = x.layout
    assert {visual.label for visual in layout.visuals} == {"video 0", "image 0"}
    image = layout.select("image")
    assert np.array_equal(image, layout.select("image 0")) and (layout.group[image] == -1).all()
    assert not np.isin(image, layout.select("video")).any()
    again = model.encode([clip(4, 40, 60), 255 - PICTURE], "Is it in the clip?", frames=None)
    changed = np.flatnonzero(np.abs(embedded(model, x) - embedded(model, again)).max(1) > 1e-6)
    assert set(changed) == set(image)


def test_one_image(model: VideoModel, tmp_path) -> None:
    x = model.encode(PICTURE, "What is it?")
    assert x.clip is None and x.layout.clips == () and x.layout.grid is None
    path = tmp_path / "picture.png"
    Image.fromarray(PICTURE).save(path)
    for same in (path, Image.open(path)):
        y = model.encode(same, "What is it?")
        assert all(torch.equal(x.inputs[name], y.inputs[name]) for name in x.inputs)
    np.testing.assert_allclose(model.run(x).logits, masks.logits(model, x), rtol=0, atol=1e-4)


def test_turns(model: VideoModel) -> None:
    shown = clip(4, 40, 60)
    x = model.chat(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "video", "video": shown},
                                         {"type": "text", "text": "What moves?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "A ball."}]},
            {"role": "user", "content": [{"type": "text", "text": "Which way?"}]},
        ],
        options=["left", "right"],
        frames=None,
    )  # fmt: skip
    layout = x.layout
    assert "".join(np.array(layout.tokens)[layout.select("question")]) == "Which way?"
    assert "".join(np.array(layout.tokens)[layout.select("history")]) == "What moves?A ball."
    assert "".join(np.array(layout.tokens)[layout.select("system")]) == "Be brief."
    assert "".join(np.array(layout.tokens)[layout.select("option 2")]) == "B. right"
    assert layout.select("video").max() < layout.select("question").min()
    generated = model.generate(x, max_new_tokens=3)
    inputs = {name: value for name, value in x.inputs.items() if name != "position_ids"}
    plain = model.hf.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert generated.meta["generated"] == plain[0, -3:].tolist()


def test_a_clip_in_a_later_turn(model: VideoModel) -> None:
    parts = [{"type": "video", "video": clip(4, 40, 60)}, {"type": "text", "text": "What?"}]
    again = [{"type": "text", "text": "And"}, {"type": "video", "video": clip(4, 40, 60, seed=1)},
             {"type": "text", "text": "here?"}]  # fmt: skip
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "A ball."},
                {"role": "user", "content": again}]  # fmt: skip
    if model.family.model_type == "llava_onevision":
        messages[1]["content"] = [{"type": "text", "text": "A ball."}]
    layout = model.chat(messages, frames=None).layout
    tokens = np.array(layout.tokens)
    assert "".join(tokens[layout.select("question")]) == "Andhere?"
    first, second = layout.select("video 0"), layout.select("video 1")
    history = layout.select("history")
    assert first.max() < history.max() < second.min()


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "no message"),
        ([{"role": "robot", "content": "x"}], "role"),
        ([{"role": "user", "content": [{"type": "sound"}]}], "write"),
        ([{"role": "assistant", "content": "x"}], "question is empty"),
    ],
)
def test_bad_conversations_are_one_line(tiny: VideoModel, messages: list, words: str) -> None:
    with pytest.raises(ProbeError, match=words) as error:
        tiny.chat(messages)
    assert "\n" not in str(error.value)


def test_bad_images_are_one_line(tiny: VideoModel, tmp_path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    for given, words in (
        (broken, "cannot be read as an image"),
        (tmp_path / "missing.png", "no such file"),
        (PICTURE.astype(np.float32), "uint8"),
    ):
        with pytest.raises(ProbeError, match=words) as error:
            tiny.encode(given, "What?")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [(56, 56), (40, 90), (200, 40)])
def test_tiles_of_an_image(size: tuple[int, int]) -> None:
    model = tiny_models.build(tiny_models.EVEN)
    model.hf.config.image_grid_pinpoints = [[56, 112], [112, 56], [112, 112]]
    model.processor.image_processor.image_grid_pinpoints = [[56, 112], [112, 56], [112, 112]]
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    x = model.encode(pixels, "What?")
    layout, visual = x.layout, x.layout.visuals[0]
    rows, cols = visual.cells or (0, 0)
    assert len(layout.select("image")) == 16 + rows * cols
    assert len(layout.select("newline")) == rows
    out = embedded(model, x)
    newline = model.hf.model.image_newline.detach().numpy()
    is_newline = np.abs(out - newline).max(1) < 1e-6
    assert np.flatnonzero(is_newline).tolist() == layout.select("newline").tolist()


def embedded(model: VideoModel, x) -> np.ndarray:
    """The merged embeddings that enter the first layer."""
    seen = []
    handle = model.layers[0].register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]),
        with_kwargs=True,
    )
    with torch.no_grad():
        model.hf(**x.inputs)
    handle.remove()
    return seen[0][0].numpy()
