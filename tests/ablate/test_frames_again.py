"""`Example.again`: the same conversation with other clips, as a user would have encoded it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.errors import ProbeError
from probe.models.encode import Example
from probe.models.given import Picture
from probe.models.video_model import VideoModel
from tests import tiny as tiny_models
from tests.families import models
from tests.tiny import clip, example

OPTIONS = ["a red ball", "a blue ball"]


def same(x: Example, y: Example) -> bool:
    """Equal inputs and equal layouts."""
    inputs = x.inputs.keys() == y.inputs.keys() and all(
        torch.equal(x.inputs[name], y.inputs[name]) for name in x.inputs
    )
    names = ("role", "group", "row", "col", "seconds", "ends", "source_frame", "readout")
    layout = all(np.array_equal(getattr(x.layout, n), getattr(y.layout, n)) for n in names)
    said = (x.question, x.answer, x.options, x.prompt) == (
        y.question,
        y.answer,
        y.options,
        y.prompt,
    )
    return inputs and layout and said and x.layout.tokens == y.layout.tokens


@pytest.mark.parametrize("name", models.NAMES)
def test_with_the_same_clips_it_is_the_same_example(name: str) -> None:
    model = models.build(name)
    x = models.example(model, answer="A red", options=OPTIONS, system=None)
    assert same(x.again(model, x.clips), x)


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl", "smolvlm"])
def test_other_clips_are_encoded_as_a_user_would(name: str) -> None:
    model = models.build(name)
    first, second, third = clip(4, 40, 60), clip(4, 40, 60, seed=1), clip(6, 40, 60, seed=2)
    how = {"answer": "B", "options": OPTIONS, "frames": None}
    x = model.encode([first, second], "Which is longer?", **how)
    y = model.encode([third, third], "Which is longer?", **how)
    assert same(x.again(model, [third, third]), y)
    picture = Picture(tiny_models.picture(30, 50).pixels)
    z = model.encode([third, picture], "Which is longer?", **how)
    one = model.encode(first, "Which is longer?", **how)
    assert same(one.again(model, [(third, picture)]), z)


def test_conversations_keep_their_turns(tiny: VideoModel) -> None:
    def talk(shown) -> Example:
        return tiny.chat(
            [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "video", "video": shown},
                                             {"type": "text", "text": "What moves?"}]},
                {"role": "assistant", "content": "A ball."},
                {"role": "user", "content": "Which way?"},
            ],
            options=["left", "right"],
            frames=None,
        )  # fmt: skip

    first, second = clip(4), clip(3, seed=5)
    assert same(talk(first).again(tiny, [second]), talk(second))


def test_an_answer_keeps_its_tokens(tiny: VideoModel) -> None:
    x = example(tiny, 5)
    ids = [70, 3, 3, 250]  # no text of its own: bytes in no valid order
    forced = tiny.force(x, ids)
    again = forced.again(tiny, [clip(3)])
    assert again.inputs["input_ids"][0, -4:].tolist() == ids
    assert same(again, tiny.force(example(tiny, 3), ids))
    assert len(again.layout.readout) == 4
    assert (again.layout.role[-4:] == "answer").all()


def test_an_answer_in_two_parts_is_read_whole(tiny: VideoModel) -> None:
    x = example(tiny, 3)
    whole = tiny.force(x, [70, 3, 3, 250])
    parts = tiny.force(tiny.force(x, [70]), [3, 3, 250])
    assert parts.layout.readout.tolist() == whole.layout.readout.tolist()
    assert np.array_equal(tiny.run(parts).logits, tiny.run(whole).logits)


def test_text_alone(tiny: VideoModel) -> None:
    x = tiny.encode(None, "What moves?", options=OPTIONS, answer="B")
    assert same(x.again(tiny, []), x)


def test_wrong_number_of_clips(tiny: VideoModel) -> None:
    with pytest.raises(ProbeError, match="2 clips for a conversation with 1"):
        example(tiny, 3).again(tiny, [clip(3), clip(3)])
